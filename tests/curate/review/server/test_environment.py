"""The private environment: built once, whole or not at all, repaired by itself. Two tiny packages stand for all."""

import base64
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from curate.review.server.environment import REQUIREMENTS, Environment, UnreachableIndexError
from curate.review.server.process import start
from schemas.errors import ReviewError

ROOT = Path(__file__).parents[4]


def make_wheel(folder: Path, name: str, version: str = "1.0") -> None:
    """Write a package of one module, as an index would hold it."""
    info, code = f"{name}-{version}.dist-info", f"VERSION = {version!r}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        digest = base64.urlsafe_b64encode(sha256(code.encode()).digest()).rstrip(b"=").decode()
        wheel.writestr(f"{info}/RECORD", f"{name}.py,sha256={digest},{len(code)}\n{info}/METADATA,,\n{info}/RECORD,,\n")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two packages."""
    folder = tmp_path_factory.mktemp("index")
    for name in ("tinyserver", "tinyengine"):
        make_wheel(folder, name)
    make_wheel(folder, "tinyserver", "2.0")
    return folder


@pytest.fixture
def tiny(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment of two packages that is not there yet."""
    monkeypatch.setenv("SFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return written(tmp_path / "list.txt", "tinyserver==1.0", "tinyengine==1.0")


def written(path: Path, *packages: str) -> Environment:
    path.write_text("# a list\n" + "\n".join(packages) + "\n")
    return Environment(path)


def module_of(environment: Environment) -> Path:
    (module,) = environment.folder.glob("lib/python*/site-packages/tinyserver.py")
    return module


def version_in(environment: Environment) -> str:
    code = "import tinyserver; print(tinyserver.VERSION)"
    return subprocess.run([environment.python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout


def test_it_is_built_once_and_tells_how_far_it_is(tiny: Environment) -> None:
    heard: list[tuple[str, int, int]] = []
    assert tiny.ensure(lambda *said: heard.append(said)) == tiny.python
    assert version_in(tiny) == "1.0\n"
    assert heard[0] == ("make environment", 0, 0)
    assert ("fetch packages", 2, 2) in heard
    assert heard[-1] == ("install packages", 2, 2)
    again: list[tuple[str, int, int]] = []
    tiny.ensure(lambda *said: again.append(said))
    assert again == []


def cut(environment: Environment) -> None:
    module_of(environment).write_text("V")


def nothing_but_zeros(environment: Environment) -> None:
    """What a file system may hold after the power failed; longer than a field of CSV may be."""
    next(environment.folder.glob("lib/python*/site-packages/tinyengine-1.0.dist-info/RECORD")).write_bytes(
        bytes(1 << 18)
    )


def without_module(environment: Environment) -> None:
    module_of(environment).unlink()


def without_package(environment: Environment) -> None:
    shutil.rmtree(next(environment.folder.glob("lib/python*/site-packages/tinyengine-1.0.dist-info")))


def without_python(environment: Environment) -> None:
    environment.python.unlink()


def without_mark(environment: Environment) -> None:
    (environment.folder / "complete").unlink()


def empty_mark(environment: Environment) -> None:
    (environment.folder / "complete").write_text("")


def test_whatever_is_broken_is_seen_and_repaired(tiny: Environment, tmp_path: Path) -> None:
    """A file missing or cut short, a package removed, no Python, no mark: each is seen, and they are healed."""
    tiny.ensure()
    kept = tmp_path / "kept"
    shutil.copytree(tiny.folder, kept, symlinks=True)
    damages: list[Callable[[Environment], None]] = [
        cut,
        nothing_but_zeros,
        without_module,
        without_package,
        without_python,
        without_mark,
        empty_mark,
    ]
    for damage in damages:
        damage(tiny)
        assert not tiny.is_whole(), damage.__name__
        shutil.rmtree(tiny.folder)
        shutil.copytree(kept, tiny.folder, symlinks=True)
        assert tiny.is_whole()
    for damage in (cut, without_python):
        damage(tiny)
    tiny.ensure()
    assert version_in(tiny) == "1.0\n"


@pytest.mark.parametrize("when", ["make environment", "fetch packages", "install packages"])
def test_killed_while_it_is_built_it_is_built_anew(tiny: Environment, when: str) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from curate.review.server.environment import Environment\n"
        f"die = lambda what, *_: what == {when!r} and os.kill(os.getpid(), signal.SIGKILL)\n"
        "Environment(Path(sys.argv[1])).ensure(die)"
    )
    died = subprocess.run([sys.executable, "-c", code, tiny.requirements], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    assert not tiny.is_whole()
    tiny.ensure()
    assert version_in(tiny) == "1.0\n"


def test_two_that_want_it_at_once_build_it_once(tiny: Environment) -> None:
    heard: list[str] = []
    threads = [threading.Thread(target=tiny.ensure, args=(lambda *said: heard.append(said[0]),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard.count("make environment") == 1
    assert version_in(tiny) == "1.0\n"


def test_settings_that_change_what_is_installed_do_not_reach_pip(
    tiny: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "constraints.txt").write_text("tinyserver==2.0\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tiny.ensure()
    assert version_in(tiny) == "1.0\n"
    assert not (tmp_path / "elsewhere").exists()


def test_a_package_that_is_not_to_be_had_is_named_and_nothing_stays(tiny: Environment) -> None:
    missing = written(tiny.requirements, "tinyserver==1.0", "absent==1.0")
    with pytest.raises(ReviewError, match=r"absent==1\.0.*ARGILLA_API_URL") as raised:
        missing.ensure()
    assert not isinstance(raised.value, UnreachableIndexError)
    assert not missing.folder.exists()


def test_without_a_network_the_error_says_what_to_do(tiny: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(UnreachableIndexError, match=r"no package index answers.*PIP_INDEX_URL.*ARGILLA_API_URL"):
        tiny.ensure()
    assert not tiny.folder.exists()


def test_a_cache_that_cannot_be_written_is_named(
    tiny: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SFT_CACHE", str(tmp_path / "file"))
    with pytest.raises(ReviewError, match=r"file.*SFT_CACHE"):
        tiny.ensure()


def test_an_environment_that_looks_whole_and_lacks_something_is_built_anew_once(
    tiny: Environment, tmp_path: Path
) -> None:
    """What the server cannot import ends the start with its name, after one attempt to repair."""
    heard: list[str] = []
    with pytest.raises(ReviewError, match=r"lacks something .ModuleNotFoundError"):
        start(tmp_path / "home", tell=lambda *said: heard.append(said[0]), environment=tiny)
    assert heard.count("repair environment") == 1
    assert heard.count("make environment") == 2


def test_the_list_names_every_package_with_its_exact_version() -> None:
    packages = Environment(REQUIREMENTS).packages
    assert "argilla-server==2.8.0" in packages
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", package) for package in packages)
    names = [package.partition("==")[0].lower() for package in packages]
    assert len(set(names)) == len(names)
    assert not {"pip", "setuptools", "wheel"} & set(names)
