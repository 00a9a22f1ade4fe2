"""The command line: what it prints, its exit codes, and no traceback for a fault of the user."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import iqn_blocks
from iqn_blocks import export
from iqn_blocks.cli import EXAMPLES, main
from iqn_blocks.interop import btr, trackmania_rl
from iqn_blocks.presets import list_presets
from iqn_blocks.registry import list_parts

SMALL = """\
n_actions: 3
float_input_dim: 2
nn:
  vis: {no_image: true}
  float: {mlp: {hidden_dim: 8}}
  decoder: {dense_hidden_dimension: 8}
"""
RUN = {
    "inputs": {"actions": [{}] * 3},
    "environment": {},
    "nn": {"vis": {"no_image": True}, "decoder": {"dense_hidden_dimension": 8}},
}


@pytest.fixture
def net_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text(SMALL)
    return "net.yaml"


def run(*arguments: str) -> int:
    return main(arguments)


def test_check_says_every_fault_of_every_file(net_yaml, capsys) -> None:
    assert run("check", net_yaml) == 0
    assert capsys.readouterr().out == "net.yaml: a classic network\n"
    Path("bad.yaml").write_text(SMALL.replace("3", "many") + "btr: {sigma: 1}\n")
    assert run("check", "bad.yaml", net_yaml, "none.yaml") == 1
    out, err = capsys.readouterr()
    assert out == "net.yaml: a classic network\n"
    assert "bad.yaml: 2 faults" in err and "n_actions: found 'many'" in err and "btr.sigma" in err
    assert "none.yaml: cannot be read" in err


def test_check_warns_of_unread_keys_or_refuses_them(net_yaml, capsys) -> None:
    Path("odd.yaml").write_text(SMALL + "  encoder: {freeze: true}\n")
    assert run("check", "odd.yaml") == 0
    assert "warning: nn.encoder.freeze: set, but" in capsys.readouterr().err
    assert run("check", "--strict", "odd.yaml") == 1
    assert "nn.encoder.freeze" in capsys.readouterr().err


def test_show_a_file_and_a_checkpoint(net_yaml, capsys) -> None:
    net = iqn_blocks.build(net_yaml)
    assert run("show", net_yaml) == 0
    assert capsys.readouterr().out == iqn_blocks.describe(net) + "\n"
    net.save_pretrained("saved")
    assert run("show", "--keys", "saved") == 0
    assert iqn_blocks.Config.model_validate(yaml.safe_load(capsys.readouterr().out)) == net.config


def test_parts_are_those_of_the_registry(capsys) -> None:
    assert run("parts") == 0
    assert ", ".join(list_parts("mixer")) in capsys.readouterr().out
    assert run("parts", "stem") == 0
    out = capsys.readouterr().out
    assert re.findall(r"^(\w+): ", out, re.MULTILINE) == list_parts("stem")
    assert re.search(r"^    width: a whole number from 1 to 65536; default \d", out, re.MULTILINE)


def test_presets_and_a_new_file_of_each(net_yaml, capsys) -> None:
    assert run("presets") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list_presets()
    for name in list_presets():
        keys = {"n_actions": 6, "float_input_dim": 7, "nn.iqn.n": 16}
        assert run("new", name, *(f"{key}={value}" for key, value in keys.items())) == 0
        text = capsys.readouterr().out
        Path("new.yaml").write_text(text)
        config = iqn_blocks.load_config("new.yaml")
        given = {"n_actions": 6, "float_input_dim": 7, "nn": {"iqn": {"n": 16}}}
        assert config == iqn_blocks.Config.model_validate(
            iqn_blocks.build({"preset": name, **given}).config.to_dict()
        )
        schema = text.splitlines()[0].partition("$schema=")[2]
        assert Path(schema).is_file()
        assert "n_actions: 6  # Discrete actions A; a list has" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("new", "btrr"), "preset: found 'btrr' (str); accepted: btr"),
        (("new", "btr"), "n_actions: missing; write n_actions=6 after"),
        (("new", "simba_iqn", "n_actions=6"), "float_input_dim: missing; write float_input_dim=6"),
        (("new", "btr", "n_actions"), "found 'n_actions'; accepted: KEY=VALUE"),
        (
            ("new", "btr", "n_actions=6", "nn.iqn.n=["),
            "found 'nn.iqn.n=['; accepted: KEY=VALUE with a value in YAML, such as nn.iqn.n=16",
        ),
        (
            ("new", "btr", "nn.iqn=3", "nn.iqn.n=4"),
            "found 'nn.iqn.n=4' after nn.iqn=3; accepted: either a value of nn.iqn or keys inside",
        ),
        (("new", "btr", "nn.iqn.n=4", "nn.iqn=3"), "found nn.iqn a second time, in 'nn.iqn=3'"),
        (("bench", "net.yaml", "--threads", "0"), "--threads: found 0; accepted: whole numbers fr"),
        (("bench", "net.yaml", "--batch", "-1"), "--batch: found -1; accepted: whole numbers from"),
        (("show", "none.yaml"), "none.yaml: cannot be read"),
        (("export", "net.yaml", "net.txt"), "net.txt: found the suffix '.txt'; accepted: .onnx"),
        (("convert", "x.pt", "out", "--from", "btr"), "--config: missing"),
        (("convert", "x.yaml", "out", "--from", "btr"), "has no YAML files"),
        (("convert", "none", "out", "--to", "btr"), "none"),
        (("diagram", "net.yaml", "no/such/folder.svg"), "no/such/folder.svg"),
    ],
)
def test_faults_are_lines(net_yaml, capsys, arguments, message) -> None:
    assert run(*arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("iqn-blocks: ") and message in err and "Traceback" not in err
    assert err.count("\n") == 1 or arguments[0] == "convert"  # the hub has more to say


def test_a_new_file_has_the_sizes_of_its_preset(net_yaml, capsys) -> None:
    assert run("new", "linesight") == 0
    Path("new.yaml").write_text(capsys.readouterr().out)
    assert iqn_blocks.load_config("new.yaml") == iqn_blocks.presets.linesight()
    assert run("new", "linesight", "n_actions=5") == 0
    assert "\nn_actions: 5  #" in capsys.readouterr().out


def test_faults_of_the_command_line_have_their_own_code(capsys) -> None:
    for arguments in ((), ("nonsense",), ("parts", "nonsense"), ("convert", "a", "b")):
        with pytest.raises(SystemExit) as stop:
            run(*arguments)
        assert stop.value.code == 2


def test_diagram(net_yaml) -> None:
    assert run("diagram", net_yaml, "net.svg") == 0
    text = Path("net.svg").read_text(encoding="utf-8")
    assert text.startswith("<svg") and "TauEmbedding" not in text.partition(">tau_embedding<")[0]
    for stage in iqn_blocks.describe_stages(iqn_blocks.build(net_yaml)):
        if stage.name not in ("encoder", "q"):
            assert f">{stage.name.removeprefix('encoder.')}<" in text


def test_trackmania_yaml_and_weights_there_and_back(net_yaml, capsys) -> None:
    Path("run.yaml").write_text(yaml.safe_dump(RUN))
    with pytest.warns(iqn_blocks.ImportedConfigWarning):
        config = trackmania_rl.load_config("run.yaml")
    assert run("convert", "run.yaml", "ours.yaml", "--from", "trackmania_rl") == 0
    assert iqn_blocks.load_config("ours.yaml") == config
    weights = trackmania_rl.to_state_dict(iqn_blocks.build(config))
    torch.save(weights, "weights1.torch")
    given = ("--from", "trackmania_rl", "--config", "ours.yaml")
    assert run("convert", "weights1.torch", "saved", *given) == 0
    assert run("convert", "saved", "back.torch", "--to", "trackmania_rl") == 0
    back = torch.load("back.torch", weights_only=True)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_weights_of_btr_there_and_back(net_yaml, capsys) -> None:
    own = {"preset": "btr", "n_actions": 2, "nn": {"vis": {"cnn": {"impala_model_size": 1}}}}
    Path("btr.yaml").write_text(yaml.safe_dump(own))
    weights = btr.to_state_dict(iqn_blocks.build("btr.yaml"))
    torch.save(weights, "model.pth")
    assert run("convert", "model.pth", "saved", "--from", "btr", "--config", "btr.yaml") == 0
    assert run("convert", "saved", "back.pth", "--to", "btr") == 0
    back = torch.load("back.pth", weights_only=True)
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_export_a_program(net_yaml) -> None:
    Path("noisy.yaml").write_text(SMALL + "btr: {use_noisy_linear: true}\n")
    net = iqn_blocks.build("noisy.yaml").eval()
    net.reset_noise()
    net.save_pretrained("saved")
    _, floats = net.example_inputs(5)
    assert run("export", "saved", "net.pt2") == 0
    metadata = dict.fromkeys(export.metadata(net), "")
    q = torch.export.load("net.pt2", extra_files=metadata).module()(floats)
    torch.testing.assert_close(q, net.q_values(None, floats))
    assert metadata == export.metadata(net)
    assert run("export", "saved", "greedy.pt2", "--no-noise") == 0
    greedy = torch.export.load("greedy.pt2").module()(floats)
    net.disable_noise()
    torch.testing.assert_close(greedy, net.q_values(None, floats))
    assert not torch.allclose(greedy, q)


def test_bench_times_acting_and_training(net_yaml, capsys, monkeypatch) -> None:
    times: list[object] = []
    monkeypatch.setattr("iqn_blocks.bench._median", lambda run: times.append(run()) or 1.5)
    threads = torch.get_num_threads()
    assert run("bench", net_yaml, "--threads", str(threads), "--batch", "8") == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    names = [row.rpartition("  ")[0].strip() for row in rows]
    assert names == [
        "act on 1",
        "act on 1, folded copy",
        "act on 8",
        "act on 8, folded copy",
        "train on 8",
    ]
    assert [q.shape for q in times[:4]] == [(1, 3), (1, 3), (8, 3), (8, 3)]
    torch.testing.assert_close(times[2], times[3])


def test_bench_of_a_network_with_memory_has_no_copy(net_yaml, capsys, monkeypatch) -> None:
    monkeypatch.setattr("iqn_blocks.bench._median", lambda run: [run(), 1.5][1])
    Path("memory.yaml").write_text(SMALL + "  core: {gru: {hidden_dim: 4}}\n")
    assert run("bench", "memory.yaml", "--threads", str(torch.get_num_threads())) == 0
    out = capsys.readouterr().out
    assert "it has a memory" in out and ", folded copy " not in out
    assert re.findall(r"^(act on 1|act on 64|train on 64) ", out, re.MULTILINE) == [
        "act on 1",
        "act on 64",
        "train on 64",
    ]


def test_each_command_shows_its_examples(capsys) -> None:
    for line in re.findall(r"^  iqn-blocks .*$", EXAMPLES, re.MULTILINE):
        with pytest.raises(SystemExit):
            run(line.split()[1], "--help")
        assert line in capsys.readouterr().out


def test_every_example_of_the_help_parses() -> None:
    from iqn_blocks.cli import _parser

    lines = re.findall(r"^  iqn-blocks (.*?)(?:  +.*| > .*)?$", EXAMPLES, re.MULTILINE)
    assert len(lines) == 11
    for line in lines:
        _parser().parse_args(line.split(" > ")[0].split())


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "iqn_blocks", "presets"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("btr ") and not done.stderr
