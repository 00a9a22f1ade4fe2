"""The command line iqn-blocks: looks at configurations and networks, and converts them."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
import yaml

import iqn_blocks
from iqn_blocks import export, presets
from iqn_blocks.bench import bench
from iqn_blocks.checkpoint.format import WEIGHTS_FILE
from iqn_blocks.config import Config, parse
from iqn_blocks.config.commented import commented
from iqn_blocks.config.loading import with_preset
from iqn_blocks.diagram import svg
from iqn_blocks.errors import ConfigError
from iqn_blocks.interop import btr, trackmania_rl
from iqn_blocks.interop.trackmania_rl.files import read_weights
from iqn_blocks.network import IQN, config_of
from iqn_blocks.recurrent import RecurrentIQN
from iqn_blocks.registry import Slot, find_part, list_parts, options_of

EXAMPLES = """\
examples:
  iqn-blocks presets                               published networks to start from
  iqn-blocks new btr n_actions=6 > net.yaml        a configuration to start from
  iqn-blocks check net.yaml                        every fault in it
  iqn-blocks show net.yaml                         the network that it describes
  iqn-blocks parts mixer                           what may stand under nn.iqn.mixer
  iqn-blocks diagram net.yaml net.svg
  iqn-blocks bench net.yaml                        how fast it is on this machine
  iqn-blocks export runs/best net.onnx             for onnxruntime, from a checkpoint
  iqn-blocks convert config.yaml net.yaml --from trackmania_rl
  iqn-blocks convert weights1.torch runs/tmrl --from trackmania_rl --config config.yaml
  iqn-blocks convert runs/tmrl weights1.torch --to trackmania_rl

NETWORK is a YAML or JSON configuration, or the folder of a checkpoint.
"""
OTHERS = ("trackmania_rl", "btr")
MOST = {"threads": 1024, "batch": 65536}  # of the command bench


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 is success, 1 a fault in what was given, 2 a fault in the command line."""
    arguments = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: print(
            f"warning: {message}", file=sys.stderr
        )
        try:
            return int(arguments.run(arguments) or 0)
        except BrokenPipeError:  # a reader such as `head` has stopped
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # Python flushes it when it exits
        except (ValueError, TypeError, LookupError, OSError, ImportError) as error:
            print(f"iqn-blocks: {error}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "iqn-blocks",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=iqn_blocks.__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(run: Callable[[Any], int | None], *names: str) -> argparse.ArgumentParser:
        about = (run.__doc__ or "").strip()
        name = run.__name__.strip("_")
        lines = [line for line in EXAMPLES.splitlines() if line.startswith(f"  iqn-blocks {name} ")]
        added = commands.add_parser(
            name,
            help=about.partition(". ")[0].rstrip("."),
            description=about,
            epilog="\n".join(["examples:", *lines]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for argument in names:
            added.add_argument(argument.lower(), metavar=argument)
        added.set_defaults(run=run)
        return added

    checking = command(_check)
    checking.add_argument("files", nargs="+", metavar="FILE")
    checking.add_argument("--strict", action="store_true", help="unread keys are faults")
    showing = command(_show, "NETWORK")
    showing.add_argument("--keys", action="store_true", help="print every key instead, as YAML")
    command(_parts).add_argument("slot", nargs="?", choices=get_args(Slot))
    command(_presets)
    command(_new, "PRESET").add_argument("keys", nargs="*", metavar="KEY=VALUE")
    converting = command(_convert, "SOURCE", "TARGET")
    way = converting.add_mutually_exclusive_group(required=True)
    way.add_argument("--from", dest="origin", choices=OTHERS, help="whose files SOURCE is")
    way.add_argument("--to", choices=OTHERS, help="whose weights TARGET becomes")
    converting.add_argument("--config", metavar="FILE", help="configuration of the weights")
    exporting = command(_export, "NETWORK", "TARGET")
    exporting.add_argument("--quantiles", action="store_true", help="take τ and give quantiles too")
    exporting.add_argument(
        "--no-noise", dest="noise", action="store_false", help="without noise, for greedy play"
    )
    command(_diagram, "NETWORK", "TARGET")
    benching = command(_bench, "NETWORK")
    benching.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    benching.add_argument("--batch", type=int, default=64, help="default: %(default)s")
    return parser


def _check(arguments: Any) -> int:
    """Say every fault of configurations. The exit code is 1 if there is one."""
    code = 0
    for file in arguments.files:
        try:
            config = iqn_blocks.check(file, strict=arguments.strict)
            print(f"{file}: a {iqn_blocks.route(config)} network")
        except ConfigError as error:
            print(error, file=sys.stderr)
            code = 1
    return code


def _show(arguments: Any) -> None:
    """Print the stages of a network, with shapes and parameters."""
    net = _network(arguments.network)
    print(config_of(net).to_yaml().strip() if arguments.keys else iqn_blocks.describe(net))


def _parts(arguments: Any) -> None:
    """List what may fill a slot, or all slots. With a slot, also the options of its parts."""
    if not arguments.slot:
        for slot in get_args(Slot):
            print(f"{slot:<9} {', '.join(list_parts(slot))}")
        return
    for name in list_parts(arguments.slot):
        part = find_part(arguments.slot, name)
        print(f"{name}: {_first_line(part)}")
        for key, option in options_of(part, arguments.slot).items():
            if option.kind is not None:
                default = "required" if option.is_required else f"default {option.default!r}"
                print(f"    {key}: {option.kind.accepts}; {default}. {option.meaning}")


def _presets(arguments: Any) -> None:
    """List configurations of published networks, for `iqn-blocks new`."""
    for name in presets.list_presets():
        print(f"{name:<12} {_first_line(getattr(presets, name))}")


def _new(arguments: Any) -> None:
    """Print a preset as a configuration with a comment to each key. KEY is dotted: nn.iqn.n=16."""
    own = _own_keys(arguments.keys)
    if arguments.preset in presets.list_presets():
        for name, size in inspect.signature(getattr(presets, arguments.preset)).parameters.items():
            if name in ("n_actions", "float_input_dim") and name not in own:
                if size.default is size.empty:
                    raise ConfigError(f"{name}: missing; write {name}=6 after the preset's name")
                own[name] = size.default
    keys = with_preset({"preset": arguments.preset, **own})
    parse(keys)
    schema = Path(iqn_blocks.__file__).parent / "config.schema.json"
    print(f"# yaml-language-server: $schema={schema}")
    print("\n".join(commented(Config, keys)))


def _own_keys(pairs: Sequence[str]) -> dict[str, Any]:
    """Keys of a configuration from ``KEY=VALUE`` with dotted keys."""
    own: dict[str, Any] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"found {pair!r}; accepted: KEY=VALUE, such as n_actions=6")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            raise ConfigError(
                f"found {pair!r}; accepted: KEY=VALUE with a value in YAML, such as nn.iqn.n=16"
            ) from None
        *blocks, last = path.split(".")
        inner = own
        for depth, block in enumerate(blocks, start=1):
            inner = inner.setdefault(block, {})
            if not isinstance(inner, dict):
                above = ".".join(blocks[:depth])
                raise ConfigError(
                    f"found {pair!r} after {above}={inner}; accepted: either a value of {above} or "
                    f"keys inside it; leave one out"
                )
        if last in inner:
            raise ConfigError(f"found {path} a second time, in {pair!r}; accepted: each key once")
        inner[last] = value
    return own


def _convert(arguments: Any) -> None:
    """Bring a YAML file or weights of another project here, or weights there."""
    source, target = arguments.source, arguments.target
    if arguments.to:
        net = iqn_blocks.from_pretrained(source)
        project = trackmania_rl if arguments.to == "trackmania_rl" else btr
        torch.save(project.to_state_dict(net), target)
    elif source.lower().endswith((".yaml", ".yml")):
        if arguments.origin == "btr":
            raise ConfigError("--from btr: that project has no YAML files; give its weights")
        Path(target).write_text(trackmania_rl.load_config(source).to_yaml(), encoding="utf-8")
    elif not arguments.config:
        raise ConfigError(
            "--config: missing; the weights alone do not say what network they are of"
        )
    elif arguments.origin == "btr":
        net = iqn_blocks.build(arguments.config)
        btr.load_state_dict(net, read_weights(source))
        net.save_pretrained(target)
    else:
        trackmania_rl.load_checkpoint(source, arguments.config).save_pretrained(target)
    print(target)


def _export(arguments: Any) -> None:
    """Write a network for other runtimes: TARGET.onnx, or TARGET.pt2 for torch.export."""
    net, target = _network(arguments.network), Path(arguments.target)
    how = {"quantiles": arguments.quantiles, "noise": arguments.noise}
    if target.suffix == ".onnx":
        export.onnx(net, target, **how)
    elif target.suffix == ".pt2":
        made = export.program(net, **how)
        torch.export.save(made, target, extra_files=export.metadata(net))
    else:
        raise ValueError(f"{target}: found the suffix {target.suffix!r}; accepted: .onnx, .pt2")
    print(target)


def _diagram(arguments: Any) -> None:
    """Draw the stages of a network as an SVG file."""
    Path(arguments.target).write_text(svg(_network(arguments.network)), encoding="utf-8")
    print(arguments.target)


def _bench(arguments: Any) -> None:
    """Time acting and a training step on this machine. Prints medians in milliseconds."""
    for name, most in MOST.items():
        if not 1 <= (found := getattr(arguments, name)) <= most:
            raise ValueError(f"--{name}: found {found}; accepted: whole numbers from 1 to {most}")
    torch.set_num_threads(arguments.threads)
    net = _network(arguments.network)
    print(f"{net.num_parameters():,} parameters, threads: {arguments.threads}")
    if isinstance(net, RecurrentIQN):
        print("it has a memory, which a folded copy would not carry: there is none to time")
    for what, milliseconds in bench(net, arguments.batch):
        print(f"{what:<24}{milliseconds:9.2f} ms", flush=True)


def _network(path: str) -> IQN:
    is_checkpoint = os.path.isfile(os.path.join(path, WEIGHTS_FILE))
    return iqn_blocks.from_pretrained(path) if is_checkpoint else iqn_blocks.build(path, seed=0)


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0].replace("``", "")
