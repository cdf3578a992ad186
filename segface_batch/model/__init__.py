"""The network: SegFace on timm backbones, its weights, and LaPa's face warp."""
