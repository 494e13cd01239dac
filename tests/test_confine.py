"""The filter of calls refuses what it names, on each kind of machine."""

from __future__ import annotations

import struct

import pytest

from graders.confine import DENIED, NEWEST, OWN, REACHING, SPECIAL, TO_OTHERS, call_filter

ALLOW, EPERM, UNKNOWN_CALL, NO_FAMILY, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x50061, 0x80000000
MACHINES = [("x86_64", 0, 0xC000003E), ("aarch64", 1, 0xC00000B7)]


def run(program: bytes, number: int, arch: int, first: int = 0, second: int = 0) -> int:
    """What the kernel would answer: the four kinds of instructions that the program consists of."""
    data = struct.pack("<IIQ6Q", number, arch, 0, first, second, 0, 0, 0, 0)
    value, at = 0, 0
    while True:
        code, yes, no, k = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x06:
            return int(k)
        if code == 0x20:
            value = struct.unpack_from("<I", data, k)[0]
        else:
            at += yes if {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[code] else no


@pytest.mark.parametrize(("machine", "column", "arch"), MACHINES)
def test_what_the_filter_says(machine: str, column: int, arch: int) -> None:
    """Named calls, new namespaces and sockets but AF_UNIX are refused; foreign calls kill; the rest runs."""
    program = call_filter(machine)
    for name, numbers in DENIED.items():
        if numbers[column] >= 0:
            assert run(program, numbers[column], arch) == EPERM, name
    clone, clone3, sock, prlimit = (SPECIAL[name][column] for name in ("clone", "clone3", "socket", "prlimit64"))
    assert run(program, clone3, arch) == UNKNOWN_CALL
    assert run(program, clone, arch, 0x01200011) == ALLOW  # a fork
    assert run(program, clone, arch, 0x10000000 | 17) == EPERM  # a user namespace
    assert [run(program, sock, arch, family) for family in (1, 2, 10, 16, 40)] == [ALLOW, *4 * [NO_FAMILY]]
    assert run(program, 0, arch) == run(program, prlimit, arch, 7) == ALLOW
    assert [run(program, number, arch) for number in (NEWEST, NEWEST + 1, 463, 999)] == [ALLOW, *3 * [UNKNOWN_CALL]]
    assert run(program, 0, 0x40000003) == KILL
    assert run(program, 0x40000000 | 101, arch) == EPERM


@pytest.mark.parametrize(("machine", "column", "arch"), MACHINES)
def test_the_filter_of_one_who_is_alone(machine: str, column: int, arch: int) -> None:
    """Without namespaces all that reaches other processes and files, and every socket, is refused besides."""
    program = call_filter(machine, lonely=True)
    for name, numbers in (DENIED | TO_OTHERS).items():
        if numbers[column] >= 0:
            assert run(program, numbers[column], arch) == EPERM, name
    clone, sock, prlimit = (SPECIAL[name][column] for name in ("clone", "socket", "prlimit64"))
    assert {run(program, sock, arch, family) for family in (1, 2, 10, 16, 40)} == {NO_FAMILY}
    affinity, fcntl, ioctl = (SPECIAL[name][column] for name in ("sched_setaffinity", "fcntl", "ioctl"))
    for own in (prlimit, affinity):
        assert [run(program, own, arch, pid) for pid in (0, 1)] == [ALLOW, EPERM]
    assert {run(program, fcntl, arch, 5, command) for command in REACHING} == {EPERM}
    assert {run(program, fcntl, arch, 5, command) for command in (0, 1, 2, 3, 4, 9, 1030)} == {ALLOW}
    assert {run(program, ioctl, arch, 5, command) for command in OWN} == {ALLOW}
    assert {run(program, ioctl, arch, 5, command) for command in (0x40086602, 0x5412, 0x8901)} == {EPERM}
    assert run(program, clone, arch, 0x01200011) == run(program, 0, arch) == ALLOW
    assert run(program, clone, arch, 0x10000000 | 17) == EPERM


def test_the_numbers_are_the_kernels() -> None:
    """The numbers of the calls are those that libseccomp knows."""
    seccomp = pytest.importorskip("pyseccomp")
    for name, numbers in (DENIED | SPECIAL | TO_OTHERS).items():
        for arch, number in zip((seccomp.Arch.X86_64, seccomp.Arch.AARCH64), numbers, strict=True):
            assert max(-1, seccomp.resolve_syscall(arch, name)) == number, name


def test_other_machines_have_no_filter() -> None:
    """Where the numbers are not known there is no program, and the self-test decides."""
    assert call_filter("riscv64") == b""
