"""A verdict cannot be edited, moved to another student, or made without the key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graders import signing
from graders.__main__ import main
from graders.signing import genuine, key, signed

VERDICT = {"score": 3, "max": 8, "exercises": {}, "notes": [], "submission": "a" * 64, "seeds": [1, 2]}


def test_a_signature_holds_for_what_was_signed() -> None:
    """Any other score, seed, hash, student, lesson or key makes the signature wrong."""
    whole = signed(VERDICT, "ann", "tiny", b"secret")
    assert genuine(json.loads(json.dumps(whole)), "ann", "tiny", b"secret")
    for name, value in {"score": 8, "seeds": [1], "submission": "b" * 64, "signature": "", "isolation": "full"}.items():
        assert not genuine(whole | {name: value}, "ann", "tiny", b"secret")
    assert not genuine(whole, "bob", "tiny", b"secret")
    assert not genuine(whole, "ann", "other", b"secret")
    assert not genuine(whole, "ann", "tiny", b"Secret")
    assert not genuine({}, "ann", "tiny", b"secret")


def test_the_key_is_its_owners(tmp_path: Path) -> None:
    """A key is made once, for its owner's eyes, and refused where others may read it."""
    path = tmp_path / "deep" / "key"
    assert key(path) == key(path)
    assert len(key(path)) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        key(path)


def test_the_key_is_outside_of_the_course(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless told otherwise the key lies in the user's data folder."""
    monkeypatch.delenv("XDG_DATA_HOME")
    assert signing.key_path() == Path.home() / ".local" / "share" / "tinytrans" / "verdicts.key"


def test_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command names every verdict that is not as it was signed, and fails for one."""
    secret = key(tmp_path / "key")
    students = {name: signed(VERDICT, name, "tiny", secret) for name in ("ann", "bob")}
    path = tmp_path / "verdicts.json"
    path.write_text(json.dumps({"assignment": "tiny", "students": students}))
    command = ["verify", str(path), "--key", str(tmp_path / "key")]
    assert main(command) == 0
    students["bob"]["score"] = 8
    path.write_text(json.dumps({"assignment": "tiny", "students": students}))
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "✓ ann: signed by this key\n✗ bob: NOT as it was signed" in said
