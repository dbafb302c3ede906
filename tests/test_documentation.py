"""README, command line, configuration and code say the same."""

from __future__ import annotations

import re
import shutil
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import pytest
from command_line import explainvad
from typer.main import get_command

from explainvad import Inspector, LotReport
from explainvad.cli import FORMATS, app
from explainvad.config import InspectionConfig, parse_config, validated
from explainvad.detection.registry import PROFILES, SCORERS, scorer_type
from explainvad.types import Decision, LotInfo

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str, section: str = "") -> list[str]:
    """The fenced blocks of a language, of the whole page or of one section."""
    text = README
    if section:
        (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Usage:
    """A command as the README or the parser knows it."""

    arguments: tuple[str, ...]
    required: frozenset[str]
    optional: frozenset[str]


def documented() -> dict[str, Usage]:
    (block,) = blocks("", "Command line")
    commands = {}
    for line in re.sub(r"\n +", " ", block).strip().splitlines():
        program, *words = line.split()
        assert program == "explainvad"
        length = 2 if words[0] in groups() else 1
        command, text = " ".join(words[:length]), " ".join(words[length:])
        optional = frozenset(re.findall(r"\[(--[a-z0-9-]+)(?: [^]]+)?\]", text))
        always = re.sub(r"\[[^]]*\]", "", text)
        required = frozenset(re.findall(r"--[a-z0-9-]+", always))
        arguments = tuple(re.sub(r"--[a-z0-9-]+ \S+", "", always).split())
        commands[command] = Usage(arguments, required, optional)
    return commands


def groups() -> dict[str, Any]:
    """Commands that have commands of their own."""
    commands = get_command(app).commands  # type: ignore[attr-defined]
    return {name: command.commands for name, command in commands.items() if hasattr(command, "commands")}


def flat() -> dict[str, Any]:
    """Every command, those of groups as GROUP COMMAND."""
    commands: dict[str, Any] = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        within = groups().get(name)
        commands |= {f"{name} {inner}": c for inner, c in within.items()} if within else {name: command}
    return commands


def implemented() -> dict[str, Usage]:
    commands = {}
    for name, command in flat().items():
        params = [p for p in command.params if p.name != "help"]
        arguments = [p for p in params if p.param_type_name == "argument"]
        options = [p for p in params if p.param_type_name == "option"]
        commands[name] = Usage(
            tuple(str(p.name).upper() + ("..." if p.nargs == -1 else "") for p in arguments if p.required),
            frozenset(p.opts[0] for p in options if p.required),
            frozenset(p.opts[0] for p in options if not p.required),
        )
    return commands


def test_the_readme_shows_every_command_and_option_and_no_others() -> None:
    readme, cli = documented(), implemented()
    assert list(readme) == list(cli)
    for name in cli:
        assert (readme[name].required, readme[name].optional) == (cli[name].required, cli[name].optional), name
        shown = tuple(a.removesuffix(".evad") for a in readme[name].arguments)
        assert shown == cli[name].arguments, name


@pytest.mark.parametrize("command", implemented())
def test_help_explains_every_option(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = explainvad(*command.split(), "--help")
    assert done.code == 0
    for option in implemented()[command].required | implemented()[command].optional:
        lines = [text for text in done.out.splitlines() if re.search(rf"{option}\b(?!-)", text)]
        (line,) = [text for text in lines if "Usage" not in text]
        assert len(re.findall(r"[a-z]{2,}", line)) >= 4, line  # words, not only the type


def test_defaults_and_choices_are_those_of_the_readme() -> None:
    (block,) = blocks("", "Command line")
    assert set(re.findall(r"--formats ([\w,]+)", block)) == {FORMATS}
    assert set(re.findall(r"--fail-on ([\w|]+)", block)) == {"reject|defer"}
    assert {float(value) for value in re.findall(r"--alpha ([\d.]+)", block)} == {InspectionConfig().alpha}
    assert set(re.findall(r"--profile (\w+)", block)) == {InspectionConfig().profile}
    assert set(re.findall(r"--device (\w+)", block)) == {InspectionConfig().device}


def test_exit_codes_are_the_same_in_help_and_readme() -> None:
    shown = " ".join(re.sub(r"[│╭╰─╮╯`]", " ", explainvad("--help").out).split())
    for code in ("0 finished", "1 findings, with --fail-on", "2 wrong usage or configuration", "4 integrity failure"):
        assert code in shown
        assert code in " ".join(README.replace("`", "").split())


def test_the_first_screen_has_one_picture_and_two_commands() -> None:
    first = README[: README.index("\n## ")]
    (commands,) = blocks("sh")[:1]
    assert commands in first
    assert [line.split("#")[0].strip() for line in commands.splitlines()] == ["make demo", "make test"]
    assert len(re.findall(r"!\[[^]]{20,}\]\(", first)) == 1
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in ("demo", "test", *re.findall(r"`make (\w+)`", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_scorer_has_its_row_and_the_example_is_valid() -> None:
    (table,) = re.findall(r"^\| scorer \| family.*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`([\w-]+)`", table)) == set(SCORERS)
    profiles = re.findall(r"^\| `([\w-]+)`.*?\|.*\|(.*)\|$", README[README.index("| `--profile` |") :], re.MULTILINE)
    assert [name for name, _ in profiles[1:6]] == list(get_args(InspectionConfig.model_fields["profile"].annotation))
    for name, needs in profiles[2:5]:
        backbones = {m.get("backbone") or scorer_type(m["use"]).options_type().backbone for m in PROFILES[name]}
        assert set(re.findall(r"[a-z]\S+-\S+", needs.replace("`", ""))) == backbones, name
    (example,) = blocks("toml", "What detects")
    chosen = parse_config(tomllib.loads(example), "README")
    for member in chosen.scorer:
        kind = scorer_type(member.use).options_type
        validated(kind, member.options, "README")


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_python_example_runs_as_it_stands(
    fitted: Inspector, lot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = blocks("python")
    shutil.copytree(lot, tmp_path / "lot42")

    def fit(references: str, **settings: Any) -> Inspector:
        assert (references, settings) == ("reference/", {"profile": "embedded"})
        return fitted

    monkeypatch.setattr(Inspector, "fit", fit)
    monkeypatch.setattr(LotReport, "render", _without_pdf(LotReport.render))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert isinstance(names["report"], LotReport)
    assert (tmp_path / "capsule.evad" / "manifest.json").is_file()
    assert (tmp_path / "reports" / "lot42" / "report.html").is_file()


def _without_pdf(render: Any) -> Any:
    return lambda report, out=None: render(report, out, ("html", "csv", "json"))


def test_the_package_docstring_shows_the_same_example() -> None:
    import explainvad as package

    (example,) = blocks("python")
    shown = re.findall(r"^>>> (.*?)\s*# doctest", str(package.__doc__), re.MULTILINE)
    statements = [line.split("  #")[0] for line in example.splitlines() if line]
    assert shown == statements


def test_the_settings_shown_are_all_there_are_with_their_defaults() -> None:
    (lot_toml,) = blocks("toml", "On your own parts")
    assert list(tomllib.loads(lot_toml)) == [field.name for field in fields(LotInfo)]
    (settings,) = blocks("toml", "Command line")
    shown = tomllib.loads(settings)
    defaults = InspectionConfig().model_dump(mode="json")  # TOML knows lists only
    for example in ("model", "group_by"):  # they have no default that TOML could show
        assert defaults.pop(example) is None
        del shown[example]
    for example in ("model", "revision", "base_url"):
        assert defaults["describer"].pop(example) is None
    for needs_no_line in ("profile", "device", "prompts", "scorer"):  # the last two are shown with the scorers
        shown.setdefault(needs_no_line, defaults[needs_no_line])
    assert shown == defaults


def test_every_decision_is_explained() -> None:
    for decision in Decision:
        assert re.search(rf"^\| {decision}\b", README, re.MULTILINE), decision
