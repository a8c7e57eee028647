"""What a CPU can do is read from its flags, so that any machine can test it; old evidence stays comparable."""

import mlflow
import pytest

from mlflow_llmops import hardware, names
from mlflow_llmops.hardware import BF16, INSTRUCTION_SETS, INT8, instruction_sets, lacking, parsed
from mlflow_llmops.methods import table
from mlflow_llmops.steps.compress import compress

HASWELL = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) CPU E5-2680 v3 @ 2.50GHz
flags\t\t: fpu vme de pse tsc msr sse sse2 ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c bmi1 avx2 erms
bugs\t\t: cpu_meltdown spectre_v1

processor\t: 1
model name\t: another one
flags\t\t: avx512_vnni
"""
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes crc32 asimdhp asimdrdm asimddp sve i8mm bf16\n"
GENOA = "avx2 avx512f avx512dq avx512_bf16 avx512_vnni"


def test_an_old_cpu_lacks_int8_and_bf16_and_a_new_one_does_not():
    assert instruction_sets(parsed(HASWELL)["flags"]) == ("avx2",)
    for wanted in (INT8, BF16):
        assert set(wanted) < set(INSTRUCTION_SETS)
        said = lacking(wanted, instruction_sets(parsed(HASWELL)["flags"]))
        assert all(each in said for each in wanted)
        for flags in (GENOA, parsed(GRAVITON)["flags"]):
            assert lacking(wanted, instruction_sets(flags)) == ""
    assert lacking(BF16, instruction_sets("avx2 avx512f avx512_vnni"))


@pytest.mark.parametrize("only", INT8)
def test_any_one_of_the_sets_is_enough(only):
    assert lacking(INT8, [only]) == ""


def test_a_machine_that_does_not_say_is_not_accused(monkeypatch):
    monkeypatch.setattr(hardware, "_cpuinfo", dict)
    assert hardware.this_cpu() is None
    assert lacking(INT8, hardware.this_cpu()) == lacking((), ()) == ""


def test_the_key_of_old_evidence_is_that_of_the_same_machine_today():
    """Evidence was stored before avx512_bf16 was looked for, and a key that has it would be another machine's."""
    prefix = names.HARDWARE_PREFIX
    tags = {prefix + "cpu": "EPYC", prefix + "cores": "2", prefix + "gpu": ""}
    now = " ".join(instruction_sets(GENOA))
    assert "avx512_bf16" in now
    stored_then = "EPYC (avx2 avx512f avx512_vnni) x2"
    assert hardware.hardware_key({**tags, prefix + "instruction_sets": now}) == stored_then
    other = hardware.hardware_key({**tags, prefix + "instruction_sets": "avx2"})
    assert other != stored_then


def test_every_method_wants_what_is_looked_for():
    for name in table.names():
        assert set(table.method_class(name).wants) <= set(INSTRUCTION_SETS)
    for name in ("quantize.int8_static", "quantize.int8_dynamic"):
        assert table.method_class(name).wants == INT8


def test_a_machine_without_int8_is_told_before_the_work_in_the_run_and_in_the_verdict(
    store, tiny_folder, tiny_data, monkeypatch, capfd
):
    monkeypatch.setattr(hardware, "_cpuinfo", lambda: parsed(HASWELL))
    given = {"measure_seconds": 0.3, "options": {}}
    outcome = compress("quantize", "int8_dynamic", str(tiny_folder), str(tiny_data), **given)
    shown = capfd.readouterr().err
    warnings = [line for line in shown.splitlines() if line.startswith("WARNING: ")]
    assert len(warnings) == 1
    assert "quantize.int8_dynamic: this CPU lacks" in warnings[0] and "avx512_vnni" in warnings[0]
    assert shown.index("WARNING: ") < shown.index("exporting to onnx")
    tags = mlflow.get_run(outcome.run_id).data.tags
    assert tags[names.HARDWARE_WARNING] == warnings[0].removeprefix("WARNING: ")
    assert "this CPU lacks what makes it fast (any one of avx512_vnni" in tags[names.VERDICT]

    outcome = compress("export", "onnx", str(tiny_folder), str(tiny_data), **given)
    assert "WARNING" not in capfd.readouterr().err
    tags = mlflow.get_run(outcome.run_id).data.tags
    assert names.HARDWARE_WARNING not in tags and "lacks" not in tags[names.VERDICT]


def test_the_main_job_says_it_before_the_teacher_is_trained(monkeypatch, capfd):
    from mlflow_llmops.steps.main import _check_chain

    monkeypatch.setattr(hardware, "_cpuinfo", lambda: parsed(HASWELL))
    _check_chain(["finetune.full", "prune.neurons", "quantize.int8_static"], {})
    assert capfd.readouterr().err.count("WARNING: quantize.int8_static: this CPU lacks") == 1
