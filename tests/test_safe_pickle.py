"""Pickles of plain data are read; whatever else a pickle asks for is refused in one line, and never carried out."""

import collections
import itertools
import pickle
import pickletools
import random
import struct
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from occsora_sim.errors import SceneError
from occsora_sim.scenes.pickle_names import NAMES
from occsora_sim.scenes.safe_pickle import load_plain

PLAIN = {
    "matrix": np.arange(6.0).reshape(2, 3),
    "by column": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "turned": np.arange(24, dtype="i2").reshape(2, 3, 4).transpose(1, 0, 2),
    "big endian": np.arange(3, dtype=">f4"),
    "flags": np.array([True, False]),
    "words": np.array(["a", "bcd"]),
    "objects": np.array([None, "green"], dtype=object),
    "empty": np.zeros((0, 3)),
    "number": np.float32(1.5),
    "ordered": collections.OrderedDict(x=1),
    "default": collections.defaultdict(int, {"y": 2}),
    "bytes": b"\xff\x00",
    "set": {1, 2},
    "nested": [(1, 2.5, None), {"a": [True]}],
    "complex": 1 + 2j,
}


def write(path: Path, content: object) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return path


def refused(path: Path, content: object) -> str:
    with pytest.raises(SceneError) as error:
        load_plain(write(path, content))
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 400
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.pkl"


class Calls:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_reads_back_equal(path, protocol):
    again = load_plain(write(path, pickle.dumps(PLAIN, protocol)))
    assert list(again) == list(PLAIN)
    for name, value in PLAIN.items():
        if isinstance(value, np.ndarray):
            assert again[name].dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
            assert again[name].shape == value.shape, name
            assert np.array_equal(again[name], value), name
        else:
            assert again[name] == value, name


def test_the_older_names_of_numpy_are_known(path):
    content = pickle.dumps(np.arange(3.0), 2).replace(b"numpy._core", b"numpy.core")
    assert load_plain(write(path, content)).tolist() == [0, 1, 2]


def test_a_call_is_refused_by_name_and_not_made(path, tmp_path):
    import os

    assert "posix.system" in refused(path, Calls(os.system, f"touch {tmp_path / 'made'}"))
    assert "builtins.eval" in refused(path, Calls(eval, "1"))
    assert "builtins.getattr" in refused(path, Calls(getattr, {}, "keys"))
    assert "numpy" in refused(path, Calls(np.load, "somewhere"))
    assert not (tmp_path / "made").exists()


class ScenarioDescription(dict):
    """Stands for MetaDrive's, by its name."""

    __module__ = "metadrive.scenario.scenario_description"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_metadrives_own_kind_of_dict_is_read_as_a_plain_one(path, monkeypatch, protocol):
    for name in ("metadrive", "metadrive.scenario", "metadrive.scenario.scenario_description"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(
        sys.modules[ScenarioDescription.__module__], "ScenarioDescription", ScenarioDescription, raising=False
    )
    content = ScenarioDescription(id="a", inner=ScenarioDescription(x=np.arange(3.0)))
    again = load_plain(write(path, pickle.dumps(content, protocol)))
    assert type(again) is dict and again["id"] == "a" and again["inner"]["x"].tolist() == [0, 1, 2]


def test_the_name_of_metadrives_dict_cannot_be_changed_or_called_with_anything(path):
    name = b"\x80\x04cmetadrive.scenario.scenario_description\nScenarioDescription\n"
    before = dict(vars(NAMES["metadrive.scenario.scenario_description", "ScenarioDescription"]))
    assert "changes ScenarioDescription" in refused(path, name + b"}b.")
    assert "changes ScenarioDescription" in refused(path, name + b"N}\x8c\x07__new__K\x01s\x86b.")
    assert "in an unknown way" in refused(path, name + b"K\x01\x85\x81.")
    assert "in an unknown way" in refused(path, name + b"K\x01\x85R.")
    assert "only plain data" in refused(path, name + b".")
    assert "unknown way" in refused(path, b"\x80\x02ccopy_reg\n_reconstructor\nK\x01K\x02K\x03\x87R.")
    assert dict(vars(NAMES["metadrive.scenario.scenario_description", "ScenarioDescription"])) == before


def test_a_call_deep_inside_is_refused_and_not_made(path, tmp_path):
    import os

    call = Calls(os.system, f"touch {tmp_path / 'made'}")
    for content in (
        {"tracks": {"ego": [{"state": (1, [call])}]}},
        {"valid": np.array([None, [call]], dtype=object)},
        collections.defaultdict(None, {"a": call}),
    ):
        assert "posix.system" in refused(path, content)
    assert not (tmp_path / "made").exists()


def test_objects_and_changes_of_what_exists_are_refused(path):
    assert "instruction OBJ" in refused(path, b"\x80\x02(cos\nsystem\nX\x01\x00\x00\x00ao.")
    assert "instruction INST" in refused(path, b"(iposix\nsystem\n.")
    assert "instruction NEWOBJ_EX" in refused(path, b"\x80\x04cpathlib\nPath\n)}\x92.")
    assert "asks for pathlib.Path" in refused(path, b"\x80\x02cpathlib\nPath\n)\x81.")
    assert "NEWOBJ class argument" in refused(path, b"\x80\x02ccollections\nOrderedDict\n)\x81.")
    assert "pathlib.PosixPath" in refused(path, Path("."))
    assert "instruction BINPERSID" in refused(path, b"\x80\x02N" + pickle.BINPERSID + b".")
    assert "instruction EXT1" in refused(path, b"\x80\x02\x82\x01.")
    assert "changes defaultdict" in refused(path, b"\x80\x02ccollections\ndefaultdict\n}b.")
    assert "it holds a Name" in refused(path, b"\x80\x02ccollections\ndefaultdict\n.")
    assert "calls int" in refused(path, b"\x80\x02cbuiltins\nint\nX\x01\x00\x00\x009\x85R.")
    assert "calls numpy.ndarray" in refused(path, b"\x80\x02cnumpy\nndarray\nJ\x00\xca\x9a\x3b\x85R.")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path, share):
    content = pickle.dumps(PLAIN)
    assert "truncated" in refused(path, content[: int(share * len(content))])


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for place in (tmp_path / "none.pkl", tmp_path):
        with pytest.raises(SceneError, match="give a pickled log"):
            load_plain(place)


def nested_lists(depth: int, copies: int, kind: str = "list") -> bytes:
    """A pickle of a list that holds `copies` times one list that holds...: few bytes, copies ** depth values."""
    end = pickle.APPENDS if kind == "list" else pickle.TUPLE
    content = b"\x80\x04" + pickle.EMPTY_LIST + pickle.MEMOIZE if kind == "list" else b"\x80\x04)\x94"
    for level in range(depth):
        again = pickle.LONG_BINGET + struct.pack("<I", level)
        start = pickle.EMPTY_LIST + pickle.MEMOIZE if kind == "list" else b""
        content += start + pickle.MARK + again * copies + end + (b"" if kind == "list" else pickle.MEMOIZE)
    return content


def memory_of(path: Path, content: bytes) -> int:
    """The most memory that refusing takes [bytes]."""
    write(path, content)
    tracemalloc.start()
    with pytest.raises(SceneError):
        load_plain(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("kind", ["list", "tuple"])
def test_a_bomb_of_nested_lists_is_refused_before_it_grows(path, kind):
    for content in (nested_lists(40, 2, kind), nested_lists(12, 10, kind)):
        assert "deep and stands for" in refused(path, content + b".")
        assert memory_of(path, content + b".") < 1e6
        # A tuple as a key would be hashed part by part.
        assert "deep and stands for" in refused(path, content[:2] + b"}" + content[2:] + b"K\x01s.")


def test_a_bomb_filled_from_above_is_refused_when_it_is_there(path):
    get = [pickle.BINGET + bytes([k]) for k in range(40)]
    lists = b"".join(pickle.EMPTY_LIST + pickle.MEMOIZE + pickle.POP for _ in range(40))
    fill = b"".join(
        a + pickle.MARK + b * 10 + pickle.APPENDS + pickle.POP for a, b in itertools.pairwise(get)
    )
    assert "deep and stands for" in refused(path, b"\x80\x04" + lists + fill + get[0] + b".")
    fill = b"".join(a + b + pickle.APPEND + pickle.POP for a, b in ((get[0], get[1]), (get[1], get[0])))
    assert "contains itself" in refused(path, b"\x80\x04" + lists + fill + get[0] + b".")


def test_deep_nesting_is_refused(path):
    assert "deep" in refused(path, b"\x80\x04" + pickle.EMPTY_LIST * 1000 + pickle.APPEND * 999 + b".")
    assert "deep" in refused(path, b"\x80\x04)" + pickle.TUPLE1 * 1000 + b".")


def test_declared_sizes_that_are_not_there_take_no_memory(path):
    huge = struct.pack("<Q", 1 << 40)
    for content in (
        pickle.BYTEARRAY8 + huge + b"x",
        pickle.BINBYTES8 + huge + b"x",
        pickle.BINUNICODE8 + huge + b"x",
        pickle.FRAME + huge + b"N.",
        b"]" + pickle.LONG_BINPUT + struct.pack("<I", 1 << 30) + b".",
        b"cbuiltins\nbytearray\n" + pickle.LONG1 + b"\x06" + (1 << 40).to_bytes(6, "little") + b"\x85R.",
        pickle.LONG4 + struct.pack("<I", 200_000) + b"\x7f" * 200_000 + b".",
        b"I" + b"9" * 100_000 + b"\n.",
    ):
        assert memory_of(path, b"\x80\x05" + content) < 4e6


def array_pickle(kind: str, shape: str, values: str) -> bytes:
    """A pickle that restores a numpy array, from Python text of its parts."""

    class Dtype:
        def __reduce__(self):
            return np.dtype, (kind, False, True), (3, "|", None, None, None, -1, -1, 0)

    class Array:
        def __reduce__(self):
            make = np.zeros(1).__reduce__()[0]
            return make, (np.ndarray, (0,), b"b"), (1, eval(shape), Dtype(), False, eval(values))

    return pickle.dumps(Array())


@pytest.mark.parametrize(
    ("kind", "shape", "values", "said"),
    [
        ("f8", "(1 << 40,)", "b''", "as many values"),
        ("f8", "(1 << 20, 1 << 20)", "bytes(8)", "as many values"),
        ("f8", "(-1,)", "b''", "impossible shape"),
        ("f8", "(1 << 40, 0)", "b''", "empty numpy array"),
        ("f8", "tuple([1] * 40)", "bytes(8)", "impossible shape"),
        ("f8", "(2.0,)", "bytes(16)", "impossible shape"),
        ("V8", "(1,)", "bytes(8)", "numpy array of type 'V8'"),
        ("S0", "(1 << 40,)", "b''", "numpy array of type 'S0'"),
        ("O8", "(2,)", "bytes(16)", "as many values"),
        ("O8", "(1 << 40,)", "[]", "as many values"),
        ("M8[s]", "(1,)", "bytes(8)", "numpy array of type 'M8[s]'"),
    ],
)
def test_arrays_that_are_not_what_they_say_are_refused(path, kind, shape, values, said):
    assert said in refused(path, array_pickle(kind, shape, values))


def test_types_made_of_fields_are_refused(path):
    pair = np.zeros(2, dtype=[("a", "f8"), ("b", "O")])
    assert "numpy array of type 'V16'" in refused(path, pair)
    content = pickle.dumps(np.zeros(2), 2)
    # The type's state, as it is written: byte order, then sub-array, names and fields.
    (at,) = [place or 0 for _, argument, place in pickletools.genops(content) if argument == "<"]
    assert content[at + 6 + content[at + 6 :].index(b"N") :][:3] == b"NNN"
    begin = at + 6 + content[at + 6 :].index(b"N")
    assert "made of fields" in refused(path, content[:begin] + b"N}N" + content[begin + 3 :])


EACH = 25
"""Mutants that are tried of each seed."""


def mutant(content: bytes, rng: random.Random) -> bytes:
    """`content` with one to four places overwritten, cut out or filled."""
    mutated = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at, cut = rng.randrange(len(mutated) + 1), rng.choice((0, 1, 1, 1, 2, 8))
        filling = rng.choice((b"", rng.randbytes(cut), bytes([rng.choice(b"(.0123]}a)tReblus\x85\x86\x94")])))
        mutated[at : at + cut] = filling
    return bytes(mutated)


@settings(max_examples=60, deadline=None, database=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(seed=st.integers(0, 2**32), protocol=st.integers(0, 5))
def test_1500_mutated_pickles_are_read_or_refused_in_one_line(path, seed, protocol):
    rng = random.Random(seed)
    content = pickle.dumps(PLAIN, protocol)
    for _ in range(EACH):
        try:
            load_plain(write(path, mutant(content, rng)))
        except SceneError as error:
            assert "\n" not in str(error) and str(error).startswith(str(path))
