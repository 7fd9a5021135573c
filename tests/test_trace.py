"""Times by part of our code: what the profiler saw of a real call, and how a program's text names the parts."""

from types import SimpleNamespace

import jax
import pytest

from benchmarks import deformable, trace
from piza_jax.models import swin
from piza_jax.ops import deformable as op


@pytest.fixture(scope="module")
def sampling():
    inputs = deformable.make_inputs(1, 128)
    call = deformable.make_ours(*inputs, "float32", form="packed")  # in parts that have names
    call()
    return trace.trace(call, jax.devices("cpu")[0])


def test_forward_and_backward_of_a_call_have_times_of_their_own(sampling):
    found = {(part.name, part.backward): part for part in sampling.parts}
    for function in ("_sample_head", "_combine_lanes", "_rows_and_weights"):
        for backward in (False, True):
            assert found[f"ops/deformable.py:{function}", backward].ms > 0
    # Each round of the loop over heads counts.
    assert found["ops/deformable.py:_combine_lanes", False].launches >= deformable.HEADS
    total = sum(part.ms for part in sampling.parts)
    assert found.get((trace.UNKNOWN, False), trace.Part("", False, 0.0, 0)).ms < 0.5 * total
    assert 0 < sampling.busy_ms <= sampling.wall_ms
    assert [part.ms for part in sampling.parts] == sorted((part.ms for part in sampling.parts), reverse=True)


def test_the_table_adds_up(sampling):
    about, rows = sampling.text(most=3).split("\n\n")
    assert "on a cpu device" in about
    lines = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()[2:]]
    assert len(lines) == 4
    assert lines[3][0] == f"{len(sampling.parts) - 3} more"
    assert sum(float(line[2].removesuffix(" %")) for line in lines) == pytest.approx(100, abs=0.3)
    assert sum(int(line[3]) for line in lines) == sum(part.launches for part in sampling.parts)


def test_a_call_that_runs_nothing_is_said_to_have_no_times():
    found = trace.trace(lambda: None, jax.devices("cpu")[0])
    assert found.parts == ()
    assert found.text() == "no times by part: jax's profiler gave no instruction of this call on a cpu device"


# Frames: 1 a benchmark, 2 Swin, 3 a helper called by it, 4 deformable sampling, 5 a library called by it.
PROGRAM = f"""HloModule jit_run

FileNames
1 "/somewhere/piza_jax/benchmarks/zoom.py"
2 "{swin.__file__}"
3 "{trace.PACKAGE}/models/layers.py"
4 "{op.__file__}"
5 "/lib/flax/linear.py"

FunctionNames
1 "main"
2 "SwinBlock.__call__"
3 "MLP.__call__"
4 "_sample_local.<locals>.<genexpr>"
5 "Linear.__call__"

FileLocations
1 {{file_name_id=1 function_name_id=1 line=1}}
2 {{file_name_id=2 function_name_id=2 line=1}}
3 {{file_name_id=3 function_name_id=3 line=1}}
4 {{file_name_id=4 function_name_id=4 line=1}}
5 {{file_name_id=5 function_name_id=5 line=1}}

StackFrames
1 {{file_location_id=1 parent_frame_id=1}}
2 {{file_location_id=2 parent_frame_id=2}}
3 {{file_location_id=3 parent_frame_id=3}}
4 {{file_location_id=4 parent_frame_id=2}}
5 {{file_location_id=5 parent_frame_id=4}}

%fused.1 (a: f32[]) -> f32[] {{
  %a.1 = f32[] add(), metadata={{op_name="jit(run)/transpose(jvp())/add" stack_frame_id=4}}
  %a.2 = f32[] add(), metadata={{op_name="jit(run)/transpose(jvp())/add" stack_frame_id=4}}
  ROOT %a.3 = f32[] add(), metadata={{op_name="jit(run)/add" stack_frame_id=2}}
}}

ENTRY %main.9 (a: f32[]) -> f32[] {{
  %own-fusion.1 = f32[] fusion(), calls=%fused.1, metadata={{op_name="jit(run)/jvp()/mul" stack_frame_id=5}}
  %silent_fusion = f32[] fusion(), kind=kLoop, calls=%fused.1
  %outside.1 = f32[] add(), metadata={{op_name="jit(run)/add" stack_frame_id=1}}
  ROOT %nothing.1 = f32[] parameter(0)
}}
"""


@pytest.mark.parametrize("parents", ["one too many", "as they are"])
def test_an_instruction_is_in_the_innermost_part_of_ours_that_is_no_helper(parents):
    text = PROGRAM
    if parents == "as they are":
        for printed in (1, 2, 3, 4):
            text = text.replace(f"parent_frame_id={printed}}}", f"parent_frame_id={printed - 1}}}")
    helped = "models/swin.py:SwinBlock > MLP"
    sampled = "ops/deformable.py:_sample_local", True
    assert trace.read_places(text) == {
        "a_1": sampled,
        "a_2": sampled,
        "a_3": ("models/swin.py:SwinBlock", False),
        "own_fusion_1": (helped, False),
        "silent_fusion": sampled,
    }


def test_time_of_what_runs_inside_is_taken_off():
    events = [
        (0.0, 100.0, "", ("loop",)),
        (10.0, 40.0, "", ("body",)),
        (20.0, 30.0, "", ("call",)),
        (50.0, 60.0, "", ()),
    ]
    assert trace._own_ns(events) == [60.0, 20.0, 10.0, 10.0]
    assert trace._busy_ns([events, [(90.0, 120.0, "", ())]]) == 120.0


def kernel(name, low, high, **stats):
    return SimpleNamespace(name=name, start_ns=low, duration_ns=high - low, stats=list(stats.items()))


def test_kernels_of_a_gpu_are_found_by_instruction_or_in_a_command_buffer_by_their_own_name(monkeypatch):
    inside = {"hlo_module": "jit_run", "hlo_op": "command_buffer.3"}
    stream = [
        kernel("own_fusion_1", 0, 2e6, **inside),
        kernel("nvjet_tst", 2e6, 3e6, **inside),
        kernel("wrapped", 3e6, 7e6, hlo_module="jit_run", hlo_op="silent_fusion"),
        kernel("own_fusion_1", 7e6, 9e6, hlo_module="jit_other", hlo_op="own_fusion.1"),
        kernel("MemcpyH2D", 12e6, 13e6),
    ]
    lines = {"/device:GPU:0": {"Stream #7(Compute)": stream, "XLA Ops": stream}, "/host:CPU": {"python": stream}}
    planes = [
        SimpleNamespace(name=name, lines=[SimpleNamespace(name=line, events=events) for line, events in of.items()])
        for name, of in lines.items()
    ]
    monkeypatch.setattr(jax.profiler.ProfileData, "from_file", lambda path: SimpleNamespace(planes=planes))
    module = SimpleNamespace(name="jit_run", to_string=lambda: PROGRAM)
    worse = SimpleNamespace(name="jit_run", to_string=lambda: "HloModule jit_run")
    executables = [SimpleNamespace(hlo_modules=lambda one=one: [one]) for one in (worse, module, worse)]
    device = SimpleNamespace(platform="gpu", client=SimpleNamespace(live_executables=lambda: executables))
    threads = [list(events) for events in trace._events("some.xplane.pb", "gpu")]
    assert trace._busy_ns(threads) == 10e6
    assert {(part.name, part.backward): (part.ms, part.launches) for part in trace._parts(threads, device)} == {
        ("ops/deformable.py:_sample_local", True): (4.0, 1),
        ("models/swin.py:SwinBlock > MLP", False): (2.0, 1),
        (trace.UNKNOWN, False): (3.0, 2),
        ("MemcpyH2D", False): (1.0, 1),
    }
