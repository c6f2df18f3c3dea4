"""Claims about first guesses on the command line: commands, flags, names, help, file endings."""

import functools
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

import stopgrad
import stopgrad.evaluation.evaluate  # before tests take its parts away
from stopgrad.cli import main
from stopgrad.cli.guesses import MEANT
from stopgrad.cli.parser import COMMANDS, parse
from stopgrad.config import describe_knobs, preset
from stopgrad.errors import ConfigError, DataError
from stopgrad.images import load_dataset
from tests.factories import write_digits
from tests.inputs import row

PRETRAIN = ("pretrain", "--data", "mnist5k", "--out", "x", "--preset", "tiny")
LR = "unknown key lr (here optimizer.base_lr, per 256 images of a batch)"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, whose images lie beside it."""
    folder = tmp_path_factory.mktemp("guesses")
    images = write_digits(folder / "images", train=60, test=20)
    stopgrad.pretrain(images, out=folder / "run", preset="tiny", epochs=1)
    return folder / "run"


def _refusal(*words: object) -> str:
    with pytest.raises(ConfigError) as caught:
        parse([str(word) for word in words])
    return str(caught.value)


_input = functools.partial(row, kind="command")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lr", "0.05"], [LR]),
        (["--lr=0.05"], [LR]),
        (["-lr", "0.05"], [LR]),
        (["--cos", "--lr", "-1"], ["unknown key cos (the learning rate follows a cosine", LR]),
        (["--gpus", "0", "1", "--lr", "3"], ["unknown key gpus (here --devices of pretrain", LR]),
        (["-b", "64", "-j", "8"], ["unknown key b (here batch)", "unknown key j (here threads"]),
        (["optimizer.lr=0.1", "max_epochs=9"], ["optimizer.lr (here optimizer.base_lr", "epochs)"]),
        (["epochs=5"], ["unexpected argument 'epochs=5'; expected --epochs 5"]),
        (["predictor-lr"], ["'predictor-lr' (a study; run it with: stopgrad study run"]),
        (["--lr", "1", "--batch", "many"], [LR, "batch = 'many'"]),
    ],
)
def test_flags_of_other_tools_are_understood_in_every_form(
    words: list[str], said: list[str]
) -> None:
    error = _refusal(*PRETRAIN, *words)
    assert [part for part in said if part not in error] == []


def test_a_folder_without_its_flag_is_understood(place: Path) -> None:
    (place / "images").mkdir()
    assert _refusal(*PRETRAIN, "images").endswith("expected --data images")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        _input("--val, --test-data and the like", "refused; the error says where splits go",
               [*PRETRAIN, "--val", "d"], "--data, such as test/"),
        _input("evaluate --test-data", "refused; the error names --data and --split",
               ["evaluate", "run", "--test-data", "d"], "RUN takes --split or --data"),
        _input("pretrain --annotations, pretrain --labels",
               "refused; the error says where labels go",
               [*PRETRAIN, "--annotations", "d"], "a table beside the images"),
        _input("--train-data without --data", "refused; the error names --data",
               ["pretrain", "--out", "x", "--train-data=d"], "--train-data (here --data)"),
    ],
)  # fmt: skip
def test_flags_for_splits_and_labels_say_where_they_are(words: list[str], said: str) -> None:
    assert said in _refusal(*words)


@pytest.mark.parametrize(
    ("command", "knob"),
    [
        (("finetune", "run"), "finetune.base_lr"),
        (("supervised", "--data", "mnist5k", "--out", "x"), "supervised.base_lr"),
        (("resume", "run"), "optimizer.base_lr"),
        (("study", "run", "improved", "--data", "mnist5k", "--out", "x"), "optimizer.base_lr"),
        (("check-data", "mnist5k"), "optimizer.base_lr"),
        (("views", "--data", "mnist5k", "--out", "x.png"), "optimizer.base_lr"),
    ],
)
def test_the_knob_is_that_of_the_command(command: tuple[str, ...], knob: str) -> None:
    assert f"lr (here {knob}, per 256 images" in _refusal(*command, "--lr", "0.1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("evaluate", "run", "--batch-size", "9"),
            "9 (a knob, set when a run begins); see",
        ),
        (("evaluate", "run", "--knn.k", "9"), "--knn.k 9 (a knob, set when a run begins)"),
        (("evaluate", "run", "--temperature", "1"), "(SimSiam has no temperature, and the kNN's"),
        (("evaluate", "run", "--metric", "knn"), "(did you mean --metrics?)"),
        (("compare", "run", "--dataset", "d"), "(here --data); see: stopgrad compare --help"),
        (("verify", "run", "--output", "d"), "--output d; see: stopgrad verify --help"),
    ],
)
def test_a_command_without_knobs_says_what_it_takes(words: tuple[str, ...], said: str) -> None:
    assert said in _refusal(*words)


@pytest.mark.parametrize("command", ["check-data", "pack"])
def test_data_may_be_named_by_the_flag_of_other_commands(command: str) -> None:
    more = ("--out", "x") if command == "pack" else ()
    for words in (("digits",), ("--data", "digits"), ("--data=digits",)):
        assert parse([command, *words, *more]).data == ["digits"]
        assert parse([command, *more, *words]).data == ["digits"]
    assert _refusal(command, *more).startswith("the following arguments are required: SPEC")


@pytest.mark.parametrize("command", ["check-data", "pack"])
@pytest.mark.parametrize(
    "words",
    [
        ("a", "b", "--data", "c"),
        ("a", "--data", "b", "--data", "c"),
        ("--data", "a", "b", "c"),
        ("--data", "a", "--data", "b", "c"),
        ("--data", "a", "--data", "b", "--data=c"),
    ],
)
def test_data_named_with_and_without_the_flag_are_all_read_in_order(
    command: str, words: tuple[str, ...]
) -> None:
    more = ("--out", "x") if command == "pack" else ()
    assert parse([command, *words, *more]).data == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("train", "pretrain"),
        ("eval", "evaluate"),
        ("fine-tune", "finetune"),
        ("check", "check-data"),
        ("pretrian", "pretrain"),
    ],
)
def test_a_word_for_a_command_is_understood(word: str, meant: str) -> None:
    assert f"invalid choice: {word!r} (did you mean {meant}?)" in _refusal(word, "x")


def test_each_word_for_a_command_leads_to_a_command_and_is_none() -> None:
    words = [word for words in MEANT.values() for word in words.split()]
    assert MEANT.keys() <= {*COMMANDS}
    assert len(words) == len({*words})
    assert not {*words} & {*COMMANDS}


@pytest.mark.parametrize(
    "words",
    [
        ("labels",),
        ("study", "labels", "--data", "mnist5k"),
        ("pretrain", "--data", "labels", "--out", "x"),
        ("pretrain", "--data", "mnist5k", "--out", "x", "--preset", "labels"),
        ("supervised", "--data", "mnist5k", "--out", "x", "labels"),
    ],
)
@pytest.mark.input(
    kind="command",
    what="a study's name where a command, a preset or a data set is expected",
    happens="refused; the error gives the command that runs the study",
)
def test_the_name_of_a_study_leads_to_its_command(words: tuple[str, ...]) -> None:
    assert "stopgrad study run labels --data SPEC --out DIR" in _refusal(*words)


def test_a_folder_with_the_name_of_a_study_is_data(place: Path) -> None:
    (place / "labels").mkdir()
    assert parse(["pretrain", "--data", "labels", "--out", "x"]).data == ["labels"]


def test_the_file_of_a_study_is_no_config(place: Path) -> None:
    (place / "s t.yaml").write_text("question: why\narms: {a: {}}\n")
    error = _refusal(*PRETRAIN, "--config", "s t.yaml")
    assert error.startswith("s t.yaml is a study; ")
    assert "stopgrad study run 's t.yaml'" in error


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (("--help",), "stopgrad [-h]"),
        (("help",), "stopgrad [-h]"),
        (("help", "pretrain"), "stopgrad pretrain"),
        (("frob", "--help"), "stopgrad [-h]"),
        (("pretrain", "--lr", "0.1", "--help"), "stopgrad pretrain"),
        (("pretrain", "--batch", "--help"), "stopgrad pretrain"),
        (("pretrain", "--help", "--preset", "nonsense"), "stopgrad pretrain"),
        (("--lr", "1", "pretrain", "-h"), "stopgrad pretrain"),
        (("compare", "--by", "nonsense", "-h"), "stopgrad compare"),
        (("evaluate", "--labels", "ten", "--help"), "stopgrad evaluate"),
        (("study", "nonsense", "--help"), "stopgrad study [-h]"),
        (("study", "run", "--seeds", "x", "--help"), "stopgrad study run"),
    ],
)
@pytest.mark.input(
    kind="command", what="--help after anything", happens="prints the command's help"
)
def test_help_answers_after_anything(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], usage: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words])
    assert caught.value.code in (0, None)
    assert capsys.readouterr().out.startswith(f"usage: {usage}")


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_the_version_is_printed(capsys: pytest.CaptureFixture[str], word: str) -> None:
    with pytest.raises(SystemExit):
        main([word])
    assert capsys.readouterr().out == "stopgrad 0.1.0\n"
    assert stopgrad.__version__ == "0.1.0" == version("stopgrad")


# Help and knobs


def _shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit):
        main([*words])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "command", ["pretrain", "supervised", "views", "check-data", "study run", "advise"]
)
def test_help_is_short_and_all_knobs_are_one_flag_away(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    short, long = (_shown(capsys, *command.split(), flag) for flag in ("--help", "--help-all"))
    for said in (f"\n  stopgrad {command} ", "\n  cpu       a small network on views of 24 px"):
        assert said in short
    assert "--views.crop_min" not in short
    assert len(short.splitlines()) < 80
    assert [knob.key for knob in describe_knobs() if f"  --{knob.key} " not in long] == []


def test_the_config_is_shown_with_where_each_value_comes_from(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    (place / "mine.yaml").write_text("views:\n  size: 20\nepochs: 7\n")
    words = ("--preset", "tiny", "--config", "mine.yaml", "--epochs", "9", "--show-config")
    shown = _shown(capsys, "pretrain", *words)
    lines = {line.split(":")[0]: line.split("  # ") for line in shown.splitlines()}
    assert [
        lines[key][0].split()[1] + " " + lines[key][1]
        for key in ("seed", "batch", "views.size", "epochs")
    ] == ["0 default", "32 preset tiny", "20 mine.yaml", "9 flag"]
    (place / "again.yaml").write_text(shown)
    config = parse([*PRETRAIN[:-2], "--config", "again.yaml"]).config
    assert config == preset("tiny", **{"views.size": 20, "epochs": 9})


@pytest.mark.parametrize("file", ["run", "run/config.json"])
def test_a_run_gives_its_knobs_to_another(run: Path, file: str) -> None:
    found = parse([*PRETRAIN[:-2], "--config", str(run.parent / file), "--seed", "3"]).config
    assert found == preset("tiny", epochs=1, seed=3)


# Names of data sets and of runs


@pytest.mark.parametrize(
    "spec",
    [
        "uoft-cs/cifar10",
        "uoft-cs/cifar10/",
        "datasets/uoft-cs/cifar10",
        "huggingface.co/datasets/uoft-cs/cifar10",
        "https://huggingface.co/datasets/uoft-cs/cifar10",
        "https://huggingface.co/datasets/uoft-cs/cifar10/viewer/plain_text/test?row=3",
    ],
)
@pytest.mark.input(
    kind="command",
    what="OWNER/NAME without hf:, or the URL of a data set's page",
    happens="refused; the error gives the right name: hf:OWNER/NAME",
)
def test_a_data_set_of_the_hub_is_recognised(spec: str) -> None:
    with pytest.raises(DataError, match=r"is named hf:uoft-cs/cifar10; else check the path"):
        load_dataset(spec)


@pytest.mark.parametrize("spec", ["./a/b", "/a/b", "../a", "~/a/b", "https://example.org/a.zip"])
def test_a_path_is_no_data_set_of_the_hub(spec: str) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(spec)
    assert "hf:" not in str(caught.value)


@pytest.mark.input(
    kind="command",
    what="a run where a data set is expected",
    happens="refused; the error says that it is a run",
)
def test_a_run_is_no_data_set(run: Path) -> None:
    with pytest.raises(
        DataError, match=r"run' is a run, not a data set; expected images; .*--init"
    ):
        load_dataset(str(run))


@pytest.mark.input(
    kind="command",
    what="a data set where a run is expected",
    happens="refused; the error names --data",
)
def test_a_data_set_is_no_run(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["evaluate", str(run.parent / "images")]) == 7
    assert "a folder of images is named by --data" in capsys.readouterr().err
    (tmp_path / "study" / "studies").mkdir(parents=True)
    assert main(["evaluate", str(tmp_path / "study")]) == 7
    error = capsys.readouterr().err
    assert "study is not a run that can be read, but a directory of studies" in error
    assert f"stopgrad study table {tmp_path}/study" in error


def test_a_run_is_no_study(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("study", "table"), ("study", "status")):
        assert main([*words, str(run)]) == 3
        assert f"{run} holds no study, but a run; " in capsys.readouterr().err


def test_what_cannot_be_verified_is_called_by_its_name(
    run: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "mine" / "studies").mkdir(parents=True)
    (place / "mine" / "studies" / "a.json").touch()
    for path, said in {
        "mine": ", but a directory of studies; ",
        "mine/studies": ", but part of a directory of studies; ",
        str(run / "config.json"): ", but a file; ",
        str(run.parent / "images"): ", but a folder; ",
        "nowhere": ": it does not exist; ",
    }.items():
        assert main(["verify", path]) == 7
        assert f"{path} is not a run{said}" in capsys.readouterr().err


# Files: the ending decides the format


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        _input(words, f"refused: {ending} is expected", words.split(), ending)
        for words, ending in (
            ("report --out page.pdf", ".html"),
            ("report --out page", ".html"),
            ("report --poster p.png", ".pdf"),
            ("neighbors --out n.jpg", ".png"),
            ("embed --out f.tsv", ".csv"),
            ("export --format onnx --out e.pt", ".onnx"),
            ("export --format timm --out e.pth", ".safetensors"),
        )
    ],
)
def test_a_file_of_another_format_is_refused_before_anything_is_computed(
    run: Path,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    ending: str,
) -> None:
    monkeypatch.setattr("stopgrad.method.build_simsiam", None)
    monkeypatch.setattr("stopgrad.runs.load_images", None)
    assert main([words[0], str(run), *words[1:]]) == 2
    error = capsys.readouterr().err
    assert f"{words[-2]} {words[-1]}; expected a file name that ends in " in error
    assert ending in error
    assert ("a PDF is written by --poster" in error) == (
        words[-1] == "page.pdf" or "--out page;" in error
    )
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("name", ["v.jpg", "v.pdf", "v", "v.png.gz"])
def test_views_are_a_png(place: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a file name that ends in \.png"):
        stopgrad.views("mnist5k", out=name, preset="tiny")
    assert list(place.iterdir()) == []


def test_an_ending_may_be_in_capitals(place: Path, run: Path) -> None:
    assert (
        stopgrad.views("mnist5k", out="V.PNG", preset="tiny", count=1).read_bytes()[1:4] == b"PNG"
    )
    stopgrad.Run(run).embed(out="F.CSV")
    assert (place / "F.CSV").read_text().startswith("path,")


def test_figures_go_into_a_folder(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"--figures f\.svg; expected a folder"):
        stopgrad.write_report(run, figures="f.svg")


def test_imported_weights_are_safetensors(place: Path) -> None:
    (place / "w.pth").touch()
    call: Callable[..., object] = stopgrad.import_weights
    with pytest.raises(ConfigError, match=r"expected a file name that ends in \.safetensors"):
        call("w.pth", out="w.pt")
