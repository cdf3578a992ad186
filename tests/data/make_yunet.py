"""Makes yunet_like.onnx: a net with YuNet's inputs and outputs that takes a red patch of 8 x 8 pixels for a face.

    uv run --no-project --with onnx python tests/data/make_yunet.py

Of each stride there are cls, obj (how red the patch is), bbox and kps.  A face is found at stride 8 alone; its box is
24 x 32 pixels around the patch's corner, its landmarks lie at OFFSETS of the patch from there.
"""

from pathlib import Path

import numpy as np

#: x and y of the five landmarks, in patches.
OFFSETS = (-0.5, -0.25, 0.5, -0.25, 0.0, 0.0, -0.4, 0.6, 0.4, 0.6)
BOX = (0.0, 0.0, float(np.log(24 / 8)), float(np.log(32 / 8)))


def main() -> None:
    # Not one of the project's packages.
    import onnx  # pyright: ignore[reportMissingImports]
    from onnx import TensorProto, helper, numpy_helper  # pyright: ignore[reportMissingImports]

    nodes, weights, outputs = [], [], []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    for stride in (8, 16, 32):
        square = [stride, stride]
        pool = helper.make_node("AveragePool", ["input"], [f"pool_{stride}"], kernel_shape=square, strides=square)
        nodes.append(pool)
        for kind, biases in (("cls", (0.0,)), ("obj", (0.0,)), ("bbox", BOX), ("kps", OFFSETS)):
            weight = np.zeros((len(biases), 3, 1, 1), np.float32)
            if kind in ("cls", "obj") and stride == 8:
                weight[0, :, 0, 0] = (-1 / 255, -1 / 255, 1 / 255)  # blue, green, red
            name = f"{kind}_{stride}"
            inputs = [
                f"pool_{stride}",
                constant(f"w_{name}", weight),
                constant(f"b_{name}", np.array(biases, np.float32)),
            ]
            nodes.append(helper.make_node("Conv", inputs, [f"map_{name}"], kernel_shape=[1, 1]))
            nodes.append(helper.make_node("Transpose", [f"map_{name}"], [f"last_{name}"], perm=[0, 2, 3, 1]))
            shape = constant(f"shape_{name}", np.array([1, -1, len(biases)], np.int64))
            nodes.append(helper.make_node("Reshape", [f"last_{name}", shape], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, len(biases)]))

    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, None, None])
    graph = helper.make_graph(nodes, "yunet_like", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    onnx.checker.check_model(model)
    onnx.save(model, Path(__file__).with_name("yunet_like.onnx"))


if __name__ == "__main__":
    main()
