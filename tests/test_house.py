"""The house keeps its order: rooms, front doors, one meaning for each name."""

import ast
import importlib
import re

from tests import house


def test_a_file_imports_only_rooms_above_its_own_and_the_command_line_the_public_face() -> None:
    order = [*house.ROOMS[:-1], *house.FACE, "cli"]
    wrong = [
        f"{one.file} imports {one.module or 'stopgrad'}"
        for one in house.all_imports()
        if order.index(house.room(one.module)) > order.index(house.room(one.file))
        and one.file != "__main__"
    ]
    assert not wrong


def test_a_command_calls_the_face_and_takes_of_rooms_only_what_it_parses_and_prints_with() -> None:
    face = {one.name for one in house.offered()} | {"__version__"}
    allowed = {"": face, **house.OF_COMMANDS}
    wrong = [
        f"{one.file} imports {one.module or 'stopgrad'}.{one.name}"
        for one in house.all_imports()
        if house.room(one.file) == "cli"
        and house.room(one.module) != "cli"
        and allowed.get(one.module) != "any name"
        and one.name not in allowed.get(one.module, ())
    ]
    assert not wrong


def test_other_rooms_are_entered_by_their_front_door() -> None:
    assert not [f"{one.file} imports {one.module}" for one in house.past_doors()]


def test_nobody_leaves_a_room_to_come_back_by_its_door() -> None:
    wrong = [
        one.file for one in house.all_imports() if one.module == house.room(one.file) != one.file
    ]
    assert not wrong


def test_files_form_no_circle() -> None:
    assert house.circles() == []


def test_every_file_stands_in_a_room() -> None:
    places = {house.room(house.dotted(path)) for path in house.files()}
    assert places <= {*house.ROOMS, *house.FACE}


def test_a_front_door_offers_only_names_that_are_there_and_hides_no_file() -> None:
    for room, names in house.doors().items():
        door = importlib.import_module(f"stopgrad.{room}")
        inside = {path.stem for path in (house.ROOT / room).iterdir()}
        assert not inside & names.keys(), room
        for name in names:
            assert getattr(door, name) is not None, f"{room}.{name}"


def test_every_name_of_a_front_door_is_used_by_another_room_or_by_users() -> None:
    used = {
        (one.module, one.name) for one in house.all_imports() + house.offered() + house.outside()
    }
    public = set(house.doors().get("export", {})) | {"pretrain_epochs", "prepare"}
    idle = [
        f"{room}.{name}"
        for room, names in house.doors().items()
        for name in names
        if (room, name) not in used and name not in public
    ]
    assert not idle


def test_a_front_door_lists_the_files_of_its_room() -> None:
    for room in (*house.doors(), "face"):
        text = (house.ROOT / room / "__init__.py").read_text()
        listed = {line.split()[0].rstrip("/") for line in text.splitlines() if line[:4] == "    "}
        inside = {
            path.stem
            for path in (house.ROOT / room).iterdir()
            if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())
        } - {"__init__", "__pycache__"}
        assert inside <= listed, f"{room}: {inside - listed}"


BY_PATH = {
    *("open", "read_bytes", "read_text", "write_bytes", "write_text", "touch", "utime", "chmod"),
    *("mkdir", "makedirs", "mkdtemp", "unlink", "rmdir", "rmtree", "rename"),
    *("symlink_to", "hardlink_to", "symlink", "link", "load_file", "safe_open", "memmap"),
    *("copytree", "os.replace", "os.remove", "shutil.copy", "shutil.move"),
}


def test_files_of_runs_and_studies_are_reached_by_storage_alone() -> None:
    calls = [
        (house.dotted(path), ast.unparse(node.func), ast.unparse(node))
        for path in house.files()
        if house.room(house.dotted(path)) in ("runs", "studies")
        for node in ast.walk(house.tree_of(path))
        if isinstance(node, ast.Call)
    ]
    by_path = [
        f"{file}: {whole}"
        for file, name, whole in calls
        if {name, name.rpartition(".")[2]} & BY_PATH and not whole.startswith("open(open_regular(")
    ]
    assert by_path == [
        "runs.machine: Path('/proc/cpuinfo').read_text()",
        "studies.claims: os.utime(file.fileno())",
        "studies.parse: (FOLDER / f'{name}.yaml').read_text(encoding='utf-8')",
    ]


def test_a_name_of_a_type_means_one_thing_in_the_whole_house() -> None:
    assert {name: where for name, where in house.classes().items() if len(where) > 1} == {}


def test_every_file_opens_with_a_docstring_and_has_the_length_of_one_subject() -> None:
    for path in house.files():
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)), path
        assert text.count("\n") <= 400, path


def test_a_function_does_one_thing_in_thirty_lines_but_for_the_parsers_of_commands() -> None:
    long = {name for name, lines in house.bodies().items() if lines > 30}
    assert {n for n in long if not re.fullmatch(r"cli\.(\w+\.add|parser\.parse)", n)} == set()


def test_the_readme_lists_the_rooms_in_this_order() -> None:
    readme = (house.ROOT.parents[1] / "README.md").read_text()
    places = [readme.index(f"\n    {room} ") for room in house.ROOMS]
    assert places == sorted(places)


def test_no_file_imports_a_file_of_tests() -> None:
    # What several tests need stands in a conftest or beside them, in a file of another name.
    wrong = [
        f"{path.relative_to(house.TESTS)} imports {module}"
        for path in house.TESTS.rglob("*.py")
        for module in house.of_tests(path)
        if re.search(r"\.test_\w+(\.|$)", module) or re.search(r"\._[a-z]", module)
    ]
    assert not wrong


def test_a_circle_would_be_found(monkeypatch) -> None:
    real = house.all_imports()
    back = house.Import("errors", "cli.parser", "x")
    there = house.Import("cli.parser", "errors", "x")
    monkeypatch.setattr(house, "all_imports", lambda: [*real, back, there])
    assert any({"errors", "cli.parser"} <= group for group in house.circles())
