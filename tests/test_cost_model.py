"""The cost model: what the system and measurements may change of it, and that no bits follow."""

from __future__ import annotations

import json
import math
import os
import random
import struct
import sys
import time

import numpy as np
import pytest
from registry import TILED
from test_contractions import CASES, LARGE

import fastconv as fc
from fastconv.cli import main
from fastconv.dispatch import backends, call_cache
from fastconv.planner import calibration, channel_lanes, cost_model, measured_costs, pixel_lanes
from fastconv.planner.request import Request
from fastconv.problem import cache_sizes, geometry, processors
from fastconv.problem.cache_sizes import CacheSizes
from fastconv.problem.geometry import Geometry

ALL = CASES | LARGE
needs_tiles = pytest.mark.skipif(not TILED, reason="no engine runs here that chooses between kernels")


@pytest.fixture
def kept_here(monkeypatch, tmp_path):
    """A file of its own for measured constants, which are in force."""
    monkeypatch.setattr(measured_costs, "paths", lambda: [tmp_path / "costs.json"])
    monkeypatch.delenv("FASTCONV_COST_MODEL")
    cost_model._of_this_machine.cache_clear()
    yield tmp_path
    cost_model._of_this_machine.cache_clear()


def layout_of(itemsize=4):
    return backends.loaded(TILED[-1]).layout(itemsize)


# ---- bits


def constants_of(model):
    """All constants of a cost model by name."""
    return {name: getattr(model, name) for name in cost_model.CostModel.__annotations__}


def drawn(seed):
    """For each layout the same cost model, all of whose constants are up to a hundred times smaller or larger."""
    draw = random.Random(seed)

    def other(value):
        if isinstance(value, tuple):
            return tuple(sorted(map(other, value)))
        scaled = value * 10 ** draw.uniform(-2, 2)
        return max(1, round(scaled)) if isinstance(value, int) else scaled

    usual = cost_model.BY_PIPES[2]
    model = cost_model.CostModel(**{name: other(value) for name, value in constants_of(usual).items()})
    return lambda layout: model


def bits(problem, dtype):
    """The bytes of the three contractions, planned anew."""
    geometry._lately.clear()
    call_cache.forget()
    x, w, bias, dy = problem.arrays("normal", dtype)
    return {
        "forward": problem.forward(x, w, bias).tobytes(),
        "input": problem.gradient("input", x.shape, w, dy).tobytes(),
        "weight": problem.gradient("weight", x, w.shape, dy).tobytes(),
    }


def assert_bits_stay(monkeypatch, name, seeds, *dtypes):
    monkeypatch.setattr("fastconv.dispatch.preparation._SERIAL", 0)
    for dtype in dtypes:
        expected = bits(ALL[name], dtype)
        for seed in seeds:
            with cost_model.use(drawn(f"{name} {seed}")):
                found = bits(ALL[name], dtype)
            assert [which for which in expected if found[which] != expected[which]] == [], seed


@needs_tiles
@pytest.mark.parametrize("name", ALL)
def test_the_bits_do_not_depend_on_the_cost_model(monkeypatch, name):
    with fc.use_backend(TILED[-1]):
        assert_bits_stay(monkeypatch, name, range(1), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("backend", TILED)
@pytest.mark.parametrize("name", ALL)
def test_the_bits_do_not_depend_on_many_cost_models(monkeypatch, name, backend):
    with fc.use_backend(backend):
        assert_bits_stay(monkeypatch, name, range(1, 12), np.float32, np.float64)


@needs_tiles
def test_a_drawn_cost_model_chooses_otherwise():
    """The tests above would hold if nothing followed the model."""
    layout, chosen = layout_of(), set()
    for seed in range(12):
        with cost_model.use(drawn(str(seed))):
            proposals = pointwise_proposals(layout)
        chosen.add(min(proposals, key=lambda name: proposals[name][:2]))
    assert chosen == {"pixels", "channels"}


def pointwise_proposals(layout):
    """The two ways to compute a layer whose kernel has one tap."""
    problem = Geometry.conv((1, 256, 56, 56), (64, 256, 1, 1), spatial=2).lifted()
    request = Request(problem, "small", layout, 4, 1)
    return {"pixels": pixel_lanes.propose(request), "channels": channel_lanes.propose(request)}


# ---- cache sizes


def sysfs(folder, caches, siblings="0"):
    """A tree as Linux has it, of (level, type, size, shared_cpu_list)."""
    (folder / "topology").mkdir()
    (folder / "topology/thread_siblings_list").write_text(f"{siblings}\n")
    for number, described in enumerate(caches):
        index = folder / f"cache/index{number}"
        index.mkdir(parents=True)
        for name, value in zip(("level", "type", "size", "shared_cpu_list"), described, strict=True):
            (index / name).write_text(f"{value}\n")
    return folder


FIRST = (1, "Data", "48K", "0"), (1, "Instruction", "32K", "0")


@pytest.mark.parametrize(
    ("caches", "siblings", "expected"),
    [
        ([*FIRST, (2, "Unified", "1024K", "0"), (3, "Unified", "32768K", "0-1")], "0", (2**20, 2**25)),
        ([*FIRST, (2, "Unified", "2048K", "0,56"), (3, "Unified", "107520K", "0-111")], "0,56", (2**21, 105 * 2**20)),
        ([*FIRST, (2, "Unified", "4M", "0-3")], "0", (2**20, 2**22)),  # a cluster of four cores, and no third level
        ([*FIRST, (2, "Unified", "", ""), (3, "Unified", "0K", "")], "", cache_sizes.DEFAULT),
        ([*FIRST, (2, "Unified", "large", "all")], "?", cache_sizes.DEFAULT),
        ([], "", cache_sizes.DEFAULT),
    ],
    ids=["Zen 5", "Sapphire Rapids", "cluster", "virtual", "nonsense", "nothing"],
)
def test_sizes_from_sysfs(tmp_path, caches, siblings, expected):
    assert cache_sizes.from_sysfs(sysfs(tmp_path, caches, siblings)) == expected


def test_sizes_from_sysctl():
    apple = {"hw.perflevel0.l2cachesize": 16 * 2**20, "hw.perflevel0.cpusperl2": 4, "hw.l2cachesize": 4 * 2**20}
    assert cache_sizes.from_sysctl(lambda name: apple.get(name, 0)) == (2**22, 2**24)
    intel = {"hw.l2cachesize": 2**18, "hw.l3cachesize": 2**23}
    assert cache_sizes.from_sysctl(lambda name: intel.get(name, 0)) == (2**18, 2**23)
    assert cache_sizes.from_sysctl(lambda name: 0) == cache_sizes.DEFAULT


def test_sizes_from_windows():
    """Of records of cores and of caches, which have their level, size and type."""
    core, cache = 0, 2
    records = [(core, 0, 0, 0), (cache, 1, 2**15, 2), (cache, 1, 2**15, 1), (cache, 2, 2**21, 0), (cache, 3, 2**24, 0)]
    packed = b"".join(
        struct.pack("=QI4xBBHII4x", 1, relationship, level, 8, 64, size, kind)
        for relationship, level, size, kind in records
    )
    assert cache_sizes.from_records(packed) == (2**21, 2**24)


def test_reading_sizes_never_fails(monkeypatch):
    def fails():
        raise RuntimeError("a system that nobody expects")

    for name in ("from_sysfs", "from_sysctl", "from_windows"):
        monkeypatch.setattr(cache_sizes, name, fails)
    assert cache_sizes.cache_sizes.__wrapped__() == cache_sizes.DEFAULT


def test_shares_of_caches():
    """The nominal sizes are those for the default caches; they follow the caches within bounds."""
    for model in cost_model.BY_PIPES.values():
        assert constants_of(model.for_caches(cache_sizes.DEFAULT)) == constants_of(model)
        larger = model.for_caches(CacheSizes(2**21, 105 * 2**20))
        assert (larger.padded_tile_bytes, larger.sums_bytes) == (2 * model.padded_tile_bytes, 2 * model.sums_bytes)
        assert larger.level2_source_bytes == 2 * model.level2_source_bytes
        for caches in (CacheSizes(1, 1), CacheSizes(2**40, 2**40)):
            assert 2**17 <= model.for_caches(caches).padded_tile_bytes <= 2**21


def test_the_name_of_a_processor(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Some CPU\nmodel\t\t: 7\n\nprocessor\t: 1\nmodel name\t: Other\n")
    assert processors.name(path).endswith(", Some CPU, 7")
    assert processors.name(tmp_path / "missing")


# ---- measured constants


def measured(**changes):
    constants = {measured_costs.key(layout_of()): {"channel_lanes_in_place": 1.5}}
    content = measured_costs.Measured(
        measured_costs.VERSION, measured_costs.processor(), "2026-01-31 12:00", "cython", constants
    )
    return content._replace(**changes)


@needs_tiles
def test_measured_constants_are_in_force(kept_here, monkeypatch):
    path = measured_costs.keep(measured())
    assert [path] == measured_costs.paths() == list(kept_here.iterdir())
    assert cost_model.current(layout_of()).channel_lanes_in_place == 1.5
    assert cost_model.current(layout_of(8)).channel_lanes_in_place == 1.0  # not measured
    assert cost_model.nominal(layout_of()).channel_lanes_in_place == 1.0
    cost_model._of_this_machine.cache_clear()
    monkeypatch.setenv("FASTCONV_COST_MODEL", "default")
    assert cost_model.current(layout_of()).channel_lanes_in_place == 1.0
    cost_model._of_this_machine.cache_clear()
    monkeypatch.setenv("FASTCONV_COST_MODEL", "defalt")
    with pytest.raises(fc.ArgumentError, match=r"FASTCONV_COST_MODEL=defalt: expected .*did you mean 'default'"):
        cost_model.current(layout_of())


LAYOUT = {} if not TILED else {"constants": {measured_costs.key(layout_of()): {"channel_lanes_in_place": 1e9}}}


@needs_tiles
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "JSONDecodeError"),
        (b"{\xff", "UnicodeDecodeError"),
        (b"[1, 2]", "TypeError"),
        (b'{"version": 1}', "TypeError"),
        ({"version": "0.0.1, format 1"}, "its version is '0.0.1, format 1', not"),
        ({"processor": "another"}, "its processor is 'another', not"),
        (LAYOUT, "channel_lanes_in_place is 1000000000.0, not between"),
        ({"constants": {"x": {"multiply_adds": math.nan}}}, "multiply_adds is nan"),
        ({"constants": {"x": {"work_items": 1}}}, "KeyError: 'work_items'"),
        ({"constants": [1]}, "AttributeError"),
    ],
    ids=["empty", "binary", "list", "fields", "version", "processor", "bounds", "nan", "fixed", "constants"],
)
def test_a_file_that_cannot_be_used_is_passed_over(kept_here, caplog, content, reason):
    """With the reason in the log."""
    if isinstance(content, dict):
        content = json.dumps(measured(**content)._asdict()).encode()
    (path,) = measured_costs.paths()
    path.write_bytes(content)
    with caplog.at_level("INFO", "fastconv"):
        model = cost_model.current(layout_of())
    assert model.channel_lanes_in_place == 1.0
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"measured constants are not taken from {path}: ")
    assert reason in line


@needs_tiles
@pytest.mark.skipif(os.name != "posix", reason="POSIX only")
def test_a_file_that_others_can_write_is_passed_over(kept_here, caplog):
    measured_costs.keep(measured()).chmod(0o666)
    with caplog.at_level("INFO", "fastconv"):
        assert measured_costs.load(cost_model.MEASURED) is None
    assert "can be written by everybody" in caplog.text


def test_where_the_file_is(monkeypatch, tmp_path):
    """In the first directory that takes it; read from the first that has it."""
    blocked, other = tmp_path / "blocked", tmp_path / "other"
    blocked.write_text("")
    monkeypatch.setenv("FASTCONV_CACHE_DIR", os.pathsep.join(map(str, (blocked, other))))
    first, second = measured_costs.paths()
    assert (first.parent, second.parent) == (blocked, other)
    content = measured_costs.Measured(measured_costs.VERSION, measured_costs.processor(), "", "", {})
    assert measured_costs.keep(content) == second
    assert [path.name for path in other.iterdir()] == [second.name]
    assert measured_costs.load(cost_model.MEASURED) == content
    blocked.unlink()
    blocked.mkdir()
    monkeypatch.setattr(measured_costs, "processor", lambda: "another")
    assert measured_costs.paths()[0].name != second.name


def test_measured_constants_are_those_of_maps():
    """What weight gradients alone read is not among them, nor sizes."""
    model = cost_model.BY_PIPES[2]
    for name, (least, most) in cost_model.MEASURED.items():
        assert least < getattr(model, name) < most
        assert isinstance(getattr(model, name), float)


# ---- measuring


class Machine(calibration.Clock):
    """A clock that runs nothing: each kernel takes what the model says, times what this machine is said to take; with
    `disturbed`, now and then a hundred times as long."""

    def __init__(self, slower, disturbed=False):
        self.slower, self.time, self.turns = slower, 0.0, 0
        self.disturbed = random.Random(0) if disturbed else None

    def now(self):
        return self.time

    def seconds(self, contender):
        taken = contender.cost / 5e9 * self.slower.get(contender.scale, 1.0)
        if self.disturbed and self.disturbed.random() < 0.5:
            taken *= 100
        self.time += 2 * taken
        return taken, taken


def chosen(layout):
    proposals = pointwise_proposals(layout)
    return min(proposals, key=lambda name: proposals[name][:2])


@needs_tiles
@pytest.mark.parametrize("disturbed", [False, True], ids=["quiet", "disturbed"])
def test_the_quicker_kernel_is_chosen_once_it_is_measured(kept_here, disturbed):
    """As on Sapphire Rapids, where pixel lanes are a quarter quicker for kernels of one tap."""
    layout, seen = layout_of(), []
    assert chosen(layout) == "channels"
    machine = Machine({"pixel_lanes_in_place": 0.75}, disturbed)
    found = calibration.measure(backends.loaded(TILED[-1]), TILED[-1], seen.append, machine, seconds=30)
    constants = found.constants[measured_costs.key(layout)]
    assert constants["pixel_lanes_in_place"] / constants["channel_lanes_in_place"] == pytest.approx(0.75, rel=0.02)
    assert constants["pixel_lanes_padded"] == constants["channel_lanes_padded"]
    assert constants["multiply_adds"] == pytest.approx(5e9, rel=0.01)
    assert sum(seen) == pytest.approx(30 * len(calibration.DTYPES))
    measured_costs.keep(found)
    cost_model._of_this_machine.cache_clear()
    assert chosen(layout) == "pixels"
    assert cost_model.current(layout).seconds(5e9) == pytest.approx(1, rel=0.01)


@needs_tiles
def test_the_kernels_of_a_layer_do_not_follow_each_other():
    """The second one would find the arrays in the caches, and seem the quicker one."""
    layout = layout_of()
    layers = [contender.layer for contender in calibration.contenders(backends.loaded(TILED[-1]), layout, "float32")]
    assert len(layers) == 2 * len(calibration._LAYERS)
    assert all(len({*layers[start : start + 5]}) == 5 for start in range(len(layers) - 4))


def test_a_gain_must_be_there_each_time():
    """Of three measurements, two in which the kernel that the model passes over is the quicker one prove nothing."""
    model = cost_model.BY_PIPES[2]
    found = [calibration.Contender("0", "a", 100.0, lambda: None), calibration.Contender("0", "b", 101.0, lambda: None)]
    one, other = (1e-8, 2e-8), (2e-8, 1e-8)
    scales = calibration.fitted(model, found, [other, other, other])
    assert scales["b"] * 101 < scales["a"] * 100
    scales = calibration.fitted(model, found, [other, one, other])
    assert scales["a"] == scales["b"]


@needs_tiles
def test_a_machine_as_the_model_says_changes_no_choice(kept_here):
    found = calibration.measure(backends.loaded(TILED[-1]), TILED[-1], lambda _: None, Machine({}), seconds=0.1)
    for constants in found.constants.values():
        assert {constants[name] for name in constants if "lanes" in name or "depthwise" in name} == {1.0}


@needs_tiles
def test_nothing_measured_is_out_of_bounds(kept_here):
    """However absurd the machine, the file that is kept is taken."""
    for slower in (1e-6, 1e6):
        machine = Machine(dict.fromkeys(("channel_lanes_padded", "depthwise_rowwise", "near", "multiply_adds"), slower))
        measured_costs.keep(calibration.measure(backends.loaded(TILED[-1]), "x", lambda _: None, machine, 0.1))
        assert measured_costs.load(cost_model.MEASURED) is not None


@needs_tiles
def test_rates_without_the_compiled_part(kept_here, monkeypatch):
    """The best kernel stands for the processor."""
    monkeypatch.setitem(sys.modules, "fastconv._machine", None)
    found = calibration.measure(backends.loaded(TILED[-1]), TILED[-1], lambda _: None, Machine({}), seconds=0.1)
    for constants in found.constants.values():
        assert constants["multiply_adds"] == pytest.approx(5e9, rel=0.01)
        assert "pad_vector" not in constants


@needs_tiles
def test_warmup_measures(kept_here, monkeypatch, capsys):
    """It writes where it says; info tells of it."""
    pytest.importorskip("tqdm")
    monkeypatch.setattr("fastconv.dispatch.backends.backend_reasons", lambda: {TILED[-1]: None})
    monkeypatch.setattr(calibration, "SECONDS", 0.2)
    monkeypatch.setattr(calibration, "TURNS", 1)
    if TILED[-1] == "numba":
        monkeypatch.setattr(type(backends.loaded("numba")), "functions", lambda _: [])
    assert main(["warmup", "--measure"]) == 0
    (path,) = measured_costs.paths()
    assert f"cost model: measured with {TILED[-1]}, kept in {path}; " in capsys.readouterr().out
    found = measured_costs.load(cost_model.MEASURED)
    assert found.constants.keys() == {measured_costs.key(layout_of(itemsize)) for itemsize in (4, 8)}
    main(["info"])
    assert f"cost model     measured {found.time} with {TILED[-1]}; caches of " in capsys.readouterr().out


def test_warmup_without_an_engine_to_measure(kept_here, monkeypatch, capsys):
    pytest.importorskip("tqdm")
    monkeypatch.setattr("fastconv.dispatch.backends.backend_reasons", lambda: {"numpy": None})
    assert main(["warmup", "--measure"]) == 1
    assert "not measured, as no engine runs here" in capsys.readouterr().err
    assert not list(kept_here.iterdir())


@needs_tiles
def test_info_without_measured_constants(kept_here, capsys):
    main(["info"])
    assert "cost model     default; caches of " in capsys.readouterr().out


@needs_tiles
@pytest.mark.slow
def test_measuring_takes_less_than_a_minute(kept_here):
    start = time.perf_counter()
    found = calibration.measure(backends.loaded(TILED[-1]), TILED[-1], lambda _: None)
    assert time.perf_counter() - start < 60
    measured_costs.keep(found)
    assert measured_costs.load(cost_model.MEASURED) == found
