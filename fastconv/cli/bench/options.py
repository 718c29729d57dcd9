"""The options of `fastconv bench`, read and checked before any work."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastconv.cli.bench import contenders, model_contenders, models, pipelines, problems
from fastconv.cli.bench.interface import Setup
from fastconv.cli.bench.models import Case
from fastconv.cli.bench.pipelines import Pipeline
from fastconv.cli.bench.problems import Problem
from fastconv.dispatch import backends, threads
from fastconv.problem import parameters
from fastconv.problem.errors import ArgumentError, BackendUnavailableError, one_of
from fastconv.problem.extras import require

#: Options of measuring times.
_OF_TIMES = ("json", "plot", "summary", "cold", "pipeline", "model", "plan", "fused", "data_format")
_FORMATS = ("channels_first", "channels_last")
#: Options that say which single layers are timed, or how.
_OF_LAYERS = ("shapes", "problem", "passes", "cold", "hot")
#: Options of convolutions alone, in single layers or pipelines.
_OF_CONVOLUTIONS = ("pipeline", "plan", "fused", "data_format", "plot")


def check_together(options: argparse.Namespace) -> None:
    """Raises `ArgumentError` for options that do not go together."""
    for option in _OF_TIMES:
        if getattr(options, option) and (options.memory or options.startup):
            raise ArgumentError(f"--{option.replace('_', '-')} goes with times, not with --memory or --startup")
    for option in _OF_LAYERS:
        if getattr(options, option) and options.pipeline:
            raise ArgumentError(f"--{option} goes with single layers, not with --pipeline")
    if options.model:
        for option in (*_OF_LAYERS, *_OF_CONVOLUTIONS):
            if getattr(options, option):
                raise ArgumentError(f"--{option.replace('_', '-')} goes with convolutions, not with --model")
        if options.dtype != "float32":
            raise ArgumentError(f"--model computes in float32, not in {options.dtype}")
    for kind in models.KINDS:
        if getattr(options, kind) and not options.model:
            raise ArgumentError(f"--{kind} goes with --model")
    if options.hot and not options.cold:
        raise ArgumentError("--hot goes with --cold; alone, it is what happens anyway")


def setup(options: argparse.Namespace) -> Setup:
    """What all contenders do alike."""
    given = options.data_format or _FORMATS[0]
    if given not in _FORMATS:
        raise ArgumentError(f"--data-format {parameters.written(given)}: {one_of(given, _FORMATS)}")
    return Setup(options.fused, given == "channels_last")


def passes(options: argparse.Namespace) -> list[str]:
    """The passes asked for; a plan, and a convolution that is fused with what follows, have the forward pass alone."""
    option = "plan" if options.plan else "fused" if options.fused else None
    if option is None:
        return listed("--passes", options.passes, problems.PASSES)
    chosen = listed("--passes", options.passes or "forward", problems.PASSES)
    if chosen != ["forward"]:
        raise ArgumentError(f"--{option} goes with the forward pass, not with --passes {options.passes}")
    return chosen


def ours(options: argparse.Namespace, dtype: np.dtype[Any]) -> str:
    """The contender of ours."""
    engine = backends.choose(options.backend, dtype)[0]
    return engine + contenders.PLAN if options.plan else engine


def colds(options: argparse.Namespace) -> list[int]:
    """The bytes of copies of a problem's arrays, for each way in which it is timed; 0 for the same arrays."""
    if options.cold is None:
        return [0]
    size = parameters.count(options.cold)
    if not size:
        raise ArgumentError(f"--cold must be a number of MB, at least 1, not {parameters.shown(options.cold)}")
    return [size * 2**20, *([0] if options.hot else [])]


def words(name: str, text: str | None) -> list[str]:
    """The words of an option, which have commas between."""
    found = [word.strip() for word in (text or "").split(",") if word.strip()]
    if text is not None and not found:
        raise ArgumentError(f"{name} must be names or numbers with commas between, not {parameters.shown(text)}")
    return found


def counts(text: str | None) -> list[int]:
    """The numbers of threads of the option, or the one that a call would get."""
    given = words("--threads", text)
    numbers = [number for word in given if (number := parameters.count(word)) is not None]
    if len(numbers) < len(given):
        raise ArgumentError(f"--threads must be numbers with commas between, not {parameters.shown(text)}")
    checked = [parameters.integer("--threads", number, 1) for number in numbers]
    return list(dict.fromkeys(checked)) or [threads.get_num_threads()]


def listed(name: str, text: str | None, valid: Sequence[str]) -> list[str]:
    """The words of an option, each one of `valid`; all of them if the option is not given."""
    given = words(name, text)
    for word in given:
        if word not in valid:
            raise ArgumentError(f"{name} {parameters.written(word)}: {one_of(word, valid)}")
    return list(dict.fromkeys(given)) or list(valid)


def against(text: str | None, ours: str, setup: Setup) -> list[str]:
    """The contenders of ours: those named, which must be able to run, or all that can."""
    reasons = contenders.names(channels_last=setup.channels_last)
    named = contenders.usual(ours) if text is None else _able(text, reasons)
    return [name for name in named if name != ours]


def ways(text: str | None, cases: Sequence[Case]) -> list[str]:
    """The contenders of whole networks: eager, and those named, which must be able to run, or all that can."""
    require("torch", "torch", "--model")
    reasons = model_contenders.names()
    if text is not None:
        named = _able(text, reasons)
        for name in named:
            if not any(model_contenders.names_of(case.kind, [name]) for case in cases):
                raise ArgumentError(f"--against {name} goes with inference, not with --training alone")
        return list(dict.fromkeys(["eager", *named]))
    for name, reason in reasons.items():
        if reason:
            print(f"without {name}: {reason}", file=sys.stderr)
    return [name for name, reason in reasons.items() if reason is None]


def _able(text: str, reasons: Mapping[str, str | None]) -> list[str]:
    """The names of the option, each of a contender that can run here."""
    named = listed("--against", text, list(reasons))
    for name in named:
        if reason := reasons[name]:
            raise BackendUnavailableError(f"--against {name} cannot run here: {reason}")
    return named


def chosen_problems(options: argparse.Namespace) -> list[Problem]:
    """The problems asked for, each once."""
    chosen: list[Problem] = []
    for line in options.problem or ():
        chosen += problems.parse(line, f"--problem {parameters.shown(line)}")
    for name in options.shapes or ([] if chosen else ["quick" if options.quick else "all"]):
        for file in problems.shape_files() if name == "all" else [name]:
            chosen += problems.read(file)
    return list(dict.fromkeys(chosen))


def chosen_pipelines(text: str | None) -> list[Pipeline]:
    """The pipelines asked for."""
    if text is None:
        return []
    valid = list(pipelines.pipeline_files())
    names = valid if text == "all" else listed("--pipeline", text, valid)
    return [pipelines.read(name) for name in names]


def chosen_models(options: argparse.Namespace) -> list[Case]:
    """The networks asked for, each for every kind asked for."""
    if options.model is None:
        return []
    chosen = list(models.model_files()) if options.model == "all" else listed("--model", options.model, models.names())
    kinds = [kind for kind in models.KINDS if getattr(options, kind)] or models.KINDS[:1]
    return [Case(name, kind, options.backend) for kind in kinds for name in chosen]
