"""Networks: SegFace on timm backbones, its weights and engines, and the face detectors."""
