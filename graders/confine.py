"""What a process does to itself before it runs a learner's code: namespaces, no capability, Landlock, seccomp.

Used inside the box, by a server that was forked from the warm one, or by the child itself where there are no
namespaces; it needs ctypes and Linux, and nothing else.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import stat
import struct
import sys
from collections.abc import Sequence

NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # user mnt pid net ipc uts
OLDEST_LANDLOCK = 3  # of Linux 6.2, the first that keeps a file from being truncated by its path
WRITABLE = ("/tmp", "/home/learner", "/dev/shm")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
_NOSUID, _NODEV, _RDONLY, _REMOUNT, _BIND, _REC, _PRIVATE = 2, 4, 1, 32, 4096, 16384, 1 << 18
_DUMPABLE, _NO_NEW_PRIVS, _SECCOMP, _DROP_BOUND, _AMBIENT, _SUBREAPER = 4, 38, 22, 24, 47, 36  # prctl's numbers
KERNEL = {"AS": 6 << 30, "FSIZE": 64 << 20, "NOFILE": 1024, "NPROC": 256, "CORE": 0}  # of a notebook's own kernel
_libc = ctypes.CDLL(None, use_errno=True)

# What no exercise needs and a hole in the kernel is reached by: number on x86_64, on aarch64. -1: not there.
DENIED = {
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "chroot": (161, 51), "clock_settime": (227, 112),
    "delete_module": (176, 106), "fanotify_init": (300, 262), "finit_module": (313, 273), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433), "init_module": (175, 105),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "kcmp": (312, 272),
    "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219), "mbind": (237, 235),
    "migrate_pages": (256, 238), "modify_ldt": (154, -1), "mount": (165, 40), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "move_pages": (279, 239), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "open_tree": (428, 428), "perf_event_open": (298, 241),
    "personality": (135, 92), "pidfd_getfd": (438, 438), "pivot_root": (155, 41), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60), "reboot": (169, 142),
    "request_key": (249, 218), "setns": (308, 268), "settimeofday": (164, 170), "swapoff": (168, 225),
    "swapon": (167, 224), "syslog": (103, 116), "umount2": (166, 39), "unshare": (272, 97),
    "userfaultfd": (323, 282), "vmsplice": (278, 75),
    # memory that belongs to no process, and that no limit of a process counts:
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "mq_open": (240, 180), "msgget": (68, 186),
    "semget": (64, 190), "shmget": (29, 194),
}  # fmt: skip
# Where no namespace hides them: what reaches other processes, and what of others' files Landlock leaves open.
TO_OTHERS = {
    "chmod": (90, -1), "chown": (92, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "fchown": (93, 55), "fchownat": (260, 54), "flock": (73, 32), "fremovexattr": (199, 16), "fsetxattr": (190, 7),
    "inotify_add_watch": (254, 27),
    "futimesat": (261, -1), "lchown": (94, -1), "lremovexattr": (198, 15), "lsetxattr": (189, 6),
    "removexattr": (197, 14), "setxattr": (188, 5), "utime": (132, -1), "utimensat": (280, 88), "utimes": (235, -1),
    "ioprio_set": (251, 30), "kill": (62, 129), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "process_madvise": (440, 440), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "sched_setattr": (314, 274), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "setpriority": (141, 140), "tgkill": (234, 131), "tkill": (200, 130),
}  # fmt: skip
SPECIAL = {
    "clone": (56, 220), "clone3": (435, 435), "fcntl": (72, 25), "ioctl": (16, 29), "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122), "socket": (41, 198),
}  # fmt: skip
NEWEST = 462  # the last call that was looked at, mseal of Linux 6.10; what came after is not there for a learner's code
# The commands of fcntl that let a descriptor signal somebody, or hold up who opens a file: F_SETOWN, F_SETSIG,
# F_SETOWN_EX, F_SETLEASE, F_NOTIFY.
REACHING = (8, 10, 15, 1024, 1026)
# The commands of ioctl that say or set something about one's own descriptor: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO,
# FIONCLEX, FIOCLEX. Others change a file that is open for reading alone.
OWN = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, the kernel's name for it
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def call_filter(machine: str = platform.machine(), *, lonely: bool = False, families: Sequence[int] = (1,)) -> bytes:
    """The seccomp program: new namespaces, mounts and sockets not of these families are refused; 1 is AF_UNIX.

    Empty on other machines.

    AF_VSOCK above all: no network namespace confines it. `lonely`: no namespace at all confines what runs under it, so
    that every socket and everything that reaches another process is refused too.
    """
    if machine not in _MACHINES:
        return b""
    column, arch = _MACHINES[machine]
    refuse = _op(_RETURN, _ERROR | errno.EPERM)
    program = [_op(_LOAD, 4), _op(_EQUAL, arch, 1, 0), _op(_RETURN, _KILL), _op(_LOAD, 0)]
    program += [_op(_AT_LEAST, 0x40000000, 0, 1), refuse]  # the x32 twins of every call
    unknown = _op(_RETURN, _ERROR | errno.ENOSYS)
    program += [_op(_AT_LEAST, NEWEST + 1, 0, 1), unknown]
    for numbers in (DENIED | TO_OTHERS if lonely else DENIED).values():
        if numbers[column] >= 0:
            program += [_op(_EQUAL, numbers[column], 0, 1), refuse]
    number = {name: numbers[column] for name, numbers in SPECIAL.items()}
    program += [_op(_EQUAL, number["clone3"], 0, 1), unknown]  # its flags lie where no filter looks
    program += [
        _op(_EQUAL, number["clone"], 0, 4),
        _op(_LOAD, 16),
        _op(_ANY_BIT, NAMESPACES | 0x02000000, 0, 1),
        refuse,
    ]
    program += [_op(_RETURN, _ALLOW)]
    if lonely:
        for name in ("prlimit64", "sched_setaffinity"):  # of this process alone, which is number 0 to itself
            program += _arguments(number[name], 16, (0,), _op(_RETURN, _ALLOW), refuse)
        program += _arguments(number["fcntl"], 24, REACHING, refuse, _op(_RETURN, _ALLOW))
        program += _arguments(number["ioctl"], 24, OWN, _op(_RETURN, _ALLOW), refuse)
    families = () if lonely else families
    program += _arguments(number["socket"], 16, families, _op(_RETURN, _ALLOW), _op(_RETURN, _ERROR | 97))
    return b"".join([*program, _op(_RETURN, _ALLOW)])  # 97: EAFNOSUPPORT


def _arguments(number: int, place: int, values: Sequence[int], then: bytes, otherwise: bytes) -> list[bytes]:
    """For the call of this number: what follows where the argument at this place is one of the values, or is not."""
    known = [_op(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values)]
    return [_op(_EQUAL, number, 0, len(values) + 3), _op(_LOAD, place), *known, otherwise, then]


def _op(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, k)


def enter(tmpfs: int) -> None:
    """Go into namespaces of one's own, with fresh tmpfs of that size; the next fork is the pid namespace's first."""
    uid, gid = os.getuid(), os.getgid()
    _prctl(_DUMPABLE, 1)  # else the maps of the new user namespace are not ours to write
    _check(_libc.unshare(NAMESPACES), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    _mount("none", "/", None, _REC | _PRIVATE)
    for place in WRITABLE:
        _mount("tmpfs", place, "tmpfs", _NOSUID | _NODEV, f"size={tmpfs},nr_inodes=16384,mode=0755")


def confine() -> None:
    """In the first process of the new namespaces: a /proc of its own, then give up all that could undo any of this."""
    _mount("proc", "/proc", "proc", _NOSUID | _NODEV)
    _mount("/proc/sys", "/proc/sys", None, _BIND)
    _mount("none", "/proc/sys", None, _BIND | _REMOUNT | _RDONLY | _NOSUID | _NODEV)
    os.chdir("/home/learner")
    _prctl(_AMBIENT, 4)  # clear all
    for capability in range(64):
        if _libc.prctl(_DROP_BOUND, capability, 0, 0, 0) != 0:
            break  # the kernel knows no more of them
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _check(_libc.capset(header, nothing), "capset")
    _prctl(_NO_NEW_PRIVS, 1)
    landlock(["/"], WRITABLE, DEVICES)
    filter_calls(call_filter())
    _prctl(_DUMPABLE, 0)


def alone(read: Sequence[str]) -> None:
    """Without namespaces: read below these places only, write nowhere, no socket, no other process.

    Raises OSError where the kernel's Landlock is older than what this needs: then nothing would hold.
    """
    _prctl(_NO_NEW_PRIVS, 1)
    if landlock(read, (), DEVICES) < OLDEST_LANDLOCK:
        raise OSError(errno.ENOSYS, f"Landlock {OLDEST_LANDLOCK} is needed")
    filter_calls(call_filter(lonely=True))
    _prctl(_DUMPABLE, 0)


def within_container() -> None:
    """In a container, whose files are read-only and of no worth: Landlock where there is any, and seccomp."""
    _prctl(_NO_NEW_PRIVS, 1)
    landlock(["/"], (), DEVICES)
    filter_calls(call_filter())
    _prctl(_DUMPABLE, 0)


def within_kernel(folder: str) -> None:
    """In bubblewrap's box, before a notebook's kernel starts: limits, and in this folder nothing but sockets."""
    for name, most in KERNEL.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    _prctl(_NO_NEW_PRIVS, 1)
    landlock(["/"], WRITABLE, DEVICES, sockets=[folder], tcp=True)  # ipykernel talks to itself; there is only loopback


def gather_orphans() -> None:
    """From now on every orphan among the descendants becomes a child of this process, and so stays within reach."""
    _prctl(_SUBREAPER, 1)


def landlock_version() -> int:
    """The version of the kernel's Landlock; 0 where it has none."""
    return max(_libc.syscall(444, None, ctypes.c_size_t(0), 1), 0) if sys.platform == "linux" else 0


def filter_calls(program: bytes) -> None:
    """Let the kernel run this program before each call of this process and all that come of it."""
    if program:
        code = ctypes.create_string_buffer(program, len(program))
        loaded = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
        pointer = ctypes.create_string_buffer(loaded, len(loaded))
        _check(_libc.prctl(_SECCOMP, 2, pointer, 0, 0), "seccomp")


def landlock(
    read: Sequence[str], write: Sequence[str], devices: Sequence[str], *, sockets: Sequence[str] = (), tcp: bool = False
) -> int:
    """Allow reading and writing below these places only, no signal outside; the version that the kernel has.

    Below `sockets` only these can be made; TCP is allowed where `tcp` says so.

    0 where the kernel has no Landlock: the namespaces hold without it.
    """
    version = landlock_version()
    if not version:
        return 0
    bits = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)  # rights on files that this version knows
    known = (1 << bits) - 1
    attributes = struct.pack("QQQ", known, 3 if version >= 4 and not tcp else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = _check(_libc.syscall(444, attributes, ctypes.c_size_t(size), 0), "landlock")
    execute, write_file, read_file, read_folder, cut, control = 1, 2, 4, 8, 1 << 14, 1 << 15
    of_a_file = execute | write_file | read_file | cut | control
    make_socket, remove = 1 << 9, 1 << 5
    for places, rights in (
        (sockets, make_socket | remove | read_file | read_folder),
        (read, execute | read_file | read_folder),
        (write, known),
        (devices, of_a_file),
    ):
        for place in places:
            _allow(rules, place, rights & known, of_a_file)
    _check(_libc.syscall(446, rules, 0), "landlock")
    os.close(rules)
    return int(version)


def _allow(rules: int, place: str, rights: int, of_a_file: int) -> None:
    try:
        fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    rights = rights if stat.S_ISDIR(os.fstat(fd).st_mode) else rights & of_a_file
    _check(_libc.syscall(445, rules, 1, struct.pack("=Qi", rights, fd), 0), f"landlock {place}")
    os.close(fd)


def _mount(source: str, place: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, place, kind)]
    options = data.encode() if data is not None else None
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), options), f"mount {place}")


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
