"""The arguments of `fastconv bench`."""

from __future__ import annotations

import argparse
from pathlib import Path

#: MB of copies of a problem's arrays: several times a last-level cache's share of a few cores.
_COLD = 96


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which problems, against whom, how."""
    parser.add_argument(
        "--shapes", action="append", metavar="FILE|NAME", help="a shape file, the name of one that comes with "
        "fastconv, or all; may be repeated (default: all, with --quick: quick)",
    )  # fmt: skip
    parser.add_argument("--problem", action="append", metavar="LINE", help="one problem, written as in a shape file")
    parser.add_argument(
        "--against", metavar="NAMES", help="such as torch,onnxruntime,openvino,ncnn,numpy (default: all that can). "
        "After an engine of ours may stand -plan, and with channels last -first for maps whose channels are first: "
        "cython-plan, cython-first, cython-plan-first",
    )  # fmt: skip
    parser.add_argument("--backend", metavar="NAME", help="the engine of ours that competes (default: auto's choice)")
    parser.add_argument(
        "--plan", action="store_true", help="our engine competes through a plan, whose weight is packed once, as those "
        "of the sessions of ONNX Runtime, OpenVINO and ncnn are; forward",
    )  # fmt: skip
    parser.add_argument(
        "--fused", action="store_true", help="add a bias and apply relu: in a plan, in ONNX Runtime, OpenVINO and ncnn "
        "as a part of the convolution, otherwise as the function's bias and a relu in place; forward",
    )  # fmt: skip
    parser.add_argument(
        "--data-format", metavar="NAME", help="how maps lie: channels_first (default) or channels_last, with which our "
        "engines compute with this data_format, and PyTorch with its memory format of maps and weights; ONNX "
        "Runtime, OpenVINO and ncnn, whose operators take maps channels first, are left out",
    )  # fmt: skip
    parser.add_argument("--passes", metavar="NAMES", help="some of forward,input,weight (default: all)")
    parser.add_argument("--threads", metavar="NUMBERS", help="for example 1,2 (default: as for any call)")
    parser.add_argument(
        "--cold", nargs="?", const=str(_COLD), metavar="MB", help="time calls as in a network: each reads another copy "
        f"of its arrays, which are as many for each contender and take {_COLD} MB or more together, and a result is "
        "dropped when the next one is there. ONNX Runtime, whose weight is a constant of a session, has a session with "
        "a weight of its own for each copy, but at most 512 for a layer",
    )  # fmt: skip
    parser.add_argument("--hot", action="store_true", help="with --cold: time calls on the same arrays as well")
    parser.add_argument(
        "--pipeline", metavar="NAMES|all", help="time the convolutions of networks in their order, forward, each "
        "reading what the one before wrote; ONNX Runtime has a session for each layer, and maps channels first. Some "
        "of resnet50, mobilenetv2, efficientnetb0, convnext_tiny, unet, dcgan",
    )  # fmt: skip
    parser.add_argument(
        "--model", metavar="NAMES|all", help="time whole networks in PyTorch, with --against eager, compile, "
        "onnxruntime, openvino, and fastconv's convert, install and backend. Some of resnet50, mobilenetv2, "
        "convnext_tiny, unet, dcgan, fsrcnn (by 2; fsrcnn_x3, fsrcnn_x4)",
    )  # fmt: skip
    parser.add_argument("--inference", action="store_true", help="with --model: time forward calls (default)")
    parser.add_argument(
        "--training", action="store_true", help="with --model: time training steps, and forward calls with --inference"
    )
    parser.add_argument("--dtype", default="float32", metavar="NAME", help="float32 or float64 (default: float32)")
    parser.add_argument("--memory", action="store_true", help="measure the peak of extra memory of each call instead")
    parser.add_argument("--startup", action="store_true", help="measure import, first call and installed size instead")
    parser.add_argument("--quick", action="store_true", help="a layer or two of each class, in about a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured; - for standard output")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="write a picture of every row's ratio")
    parser.add_argument(
        "--summary",
        type=Path,
        metavar="FILE.png",
        help="write a picture of the mean ratio by class, or of each pipeline",
    )
