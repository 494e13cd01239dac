# ruff: noqa: E501  (an attack reads best as the few lines that it is)
"""What the code of a submission may try, and the verdict that must follow: the cheat earns nothing, everything else its points."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from boxes import needs_box
from tiny_course import NAME, POINTS, RIGHT

from graders.grade import Verdict, grade
from graders.rebuild import Submission
from graders.release import Release, load
from graders.sandbox import LIMITS, Sandbox
from graders.warm import boxes
from graders.weaker import missing_container

pytestmark = needs_box
SHORT = replace(LIMITS, server=2, cells=4, call=5, submission=60, memory=1 << 29, together=1 << 30)
OWN = "halve_softmax"  # the exercise that the attacks try to win
HALF = "def halve_softmax(x):\n    return torch.softmax(x, -1)"  # wrong


@dataclass(frozen=True)
class Attack:
    """Sources in the place of right answers, and the exercises that must then earn less than full points."""

    sources: dict[str, str]
    lost: dict[str, int] = field(default_factory=lambda: {OWN: 0})
    message: str = ""


def wins(source: str, message: str = "") -> Attack:
    """An attack from the cell of OWN alone, whose answer is wrong: it must earn nothing, and nothing else be lost."""
    return Attack({OWN: source}, message=message)


ATTACKS = {
    "patched comparisons": wins(
        "import torch.testing, builtins, math\n"
        "torch.allclose = torch.equal = torch.isclose = lambda *a, **k: True\n"
        "torch.testing.assert_close = lambda *a, **k: None\n"
        "math.isclose = builtins.abs = lambda *a, **k: 0\n" + HALF
    ),
    "an object that equals everything": wins(
        "class Yes:\n    shape = (3, 3)\n    dtype = torch.float32\n    def __eq__(self, other): return True\n"
        "    def __bool__(self): return True\n    def __getattr__(self, name): return lambda *a, **k: self\n"
        "def halve_softmax(x):\n    return Yes()",
        "a Yes is no plain value",
    ),
    "a tensor subclass that lies": wins(
        "class Lie(torch.Tensor):\n    @classmethod\n    def __torch_function__(cls, f, types, args=(), kwargs=None):\n"
        "        return True\ndef halve_softmax(x):\n    return x.as_subclass(Lie)"
    ),
    "a class that gives itself out for a float": wins(
        "class F(float):\n    def __eq__(self, other): return True\n    def __sub__(self, other): return 0.0\ndef halve_softmax(x):\n    return F(1)"
    ),
    "NaN as a wildcard": wins("def halve_softmax(x):\n    return x * float('nan')", "got nan"),
    "infinity as a wildcard": wins("def halve_softmax(x):\n    return x * float('inf')"),
    "broadcast shape": wins("def halve_softmax(x):\n    return torch.softmax(2 * x, -1)[None] / 2", "expected shape"),
    "another dtype": wins("def halve_softmax(x):\n    return (torch.softmax(2 * x, -1) / 2).long()", "expected dtype"),
    "printed verdicts": wins("print('PASSED 2/2')\nprint('{\"score\": 2}')\nimport sys\nsys.stderr.write('ok')\n" + HALF),
    "results written to files": wins("for name in ('results.json', 'results.pkl', 'grade.txt'):\n    open(name, 'w').write('2')\n" + HALF),
    "the tests in memory": wins(
        "import gc, sys\nclass Found(Exception): pass\ndef halve_softmax(x):\n    for o in gc.get_objects():\n"
        "        if type(o).__name__ in ('Exercise', 'Requirement', 'Wrong', 'Draw', 'Trial'):\n            return 'found'\n"
        "    f = sys._getframe()\n    while f:\n        if 'exercise' in f.f_locals or 'expected' in f.f_locals: return 'found'\n        f = f.f_back\n"
        "    raise Found('nothing')",
        "Found: nothing",
    ),
    "the reference in a package": wins(
        "def halve_softmax(x):\n    import importlib\n    tried = []\n"
        "    for name in ('graders.judge', 'graders.exercise', 'graders.checks', 'graders.checks.tiny', 'tinytrans.nn', 'tinytrans.nn.attention', 'solutions.build', 'tiny'):\n"
        "        try: importlib.import_module(name)\n        except ImportError: continue\n        tried.append(name)\n    raise ValueError(f'imported {tried}')",
        "imported []",
    ),
    "the course folder": wins(
        "import glob, os\ndef halve_softmax(x):\n    try: tops = [d for d in os.listdir('/') if d not in ('proc', 'usr', 'sys', 'packages', 'lib', 'lib64', 'bin', 'sbin')]\n    except PermissionError: tops = ['home', 'root', 'work', 'srv', 'opt', 'mnt', 'tmp', 'etc', 'var']\n"
        "    seen = [os.path.join(f, n) for top in tops for f, _, names in os.walk('/' + top) for n in names\n"
        "            if n.endswith(('.ipynb', '.db')) or n in ('judge.py', 'tiny.py', 'exercise.py', 'attention.py')]\n"
        "    seen += glob.glob('/packages/*/tinytrans/*') + glob.glob('/packages/*/graders/*')\n    raise ValueError(f'seen {seen}')",
        "seen []",
    ),
    "secrets in the environment": wins("import os\ndef halve_softmax(x):\n    raise ValueError(f'token {os.environ.get(\"TT_TOKEN\")}')", "token None"),
    "the network": wins(
        "import socket\ndef halve_softmax(x):\n    try: socket.create_connection(('1.1.1.1', 53), 1)\n"
        "    except OSError as e: raise ValueError(f'no network {e.errno}')\n    return 'reached'",
        "no network",
    ),
    "a shell": wins("import subprocess\ndef halve_softmax(x):\n    out = subprocess.run(['id', '-u'], capture_output=True, text=True).stdout\n    raise ValueError(f'uid {out.strip()}')", "uid 65534"),
    "os._exit in the cell": wins("import os\n" + HALF + "\nos._exit(0)", "process of your code ended"),
    "os._exit in the call": wins("import os\ndef halve_softmax(x):\n    os._exit(0)", "process of your code ended"),
    "sys.exit in the cell": wins("import sys\n" + HALF + "\nsys.exit(0)"),
    "sys.exit in the call": wins("import sys\ndef halve_softmax(x):\n    sys.exit(0)", "SystemExit"),
    "a crash": wins("import ctypes\ndef halve_softmax(x):\n    ctypes.string_at(0)", "process of your code ended"),
    "a loop in the cell": wins(HALF + "\nwhile True: pass", "does not end"),
    "a loop in the call": wins("def halve_softmax(x):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass", "does not end"),
    "signals ignored": wins("import signal\nfor s in range(1, 64):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\ndef halve_softmax(x):\n    while True: pass", "does not end"),
    "a fork bomb": wins("import os\n" + HALF + "\nwhile True:\n    try: os.fork()\n    except OSError: pass"),
    "a memory bomb": wins("def halve_softmax(x):\n    return [bytearray(1 << 30) for _ in range(64)]", "MemoryError"),
    "a print flood": wins(HALF + "\nfor _ in range(100_000): print('x' * 1000)"),
    "a giant answer": wins("def halve_softmax(x):\n    return torch.zeros(1 << 28)"),
    "a deep answer": wins("def halve_softmax(x):\n    deep = []\n    for _ in range(100_000): deep = [deep]\n    return deep"),
    "an endless answer": wins("class Endless(list):\n    def __iter__(self):\n        while True: yield 1\ndef halve_softmax(x):\n    return Endless()"),
    "a giant error": wins("def halve_softmax(x):\n    raise ValueError('\\x1b]0;title\\x07' + 'x' * (1 << 24))", "ValueError"),
    "frames on the socket": wins("import os\nfor fd in range(3, 30):\n    try: os.write(fd, b'\\x10\\0\\0\\0\\0\\0\\0\\0{\"d\": [[\"n\",0]]}')\n    except OSError: pass\n" + HALF),
    "frames in the call": wins("import os\ndef halve_softmax(x):\n    os.write(3, b'\\0' * 1000)\n    return x"),
    "its own server": wins("import json, os, signal\ndef halve_softmax(x):\n    os.kill(os.getppid(), signal.SIGKILL)\n    while True: pass"),
    "a daemon": wins("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)\n" + HALF),
    "atexit and finalizers": wins("import atexit, os\natexit.register(os._exit, 3)\nclass D:\n    def __del__(self): os._exit(3)\nd = D()\n" + HALF),
    "a thread that changes things later": wins(
        "import threading, time\ndef later():\n    while True:\n        globals()['halve_softmax'] = lambda x: x\n        time.sleep(0.001)\n"
        "threading.Thread(target=later, daemon=True).start()\n" + HALF
    ),
    "other exercises' names": wins("def double(x): raise ValueError\n" + HALF),
    "global settings": wins("torch.set_default_dtype(torch.float64)\ntorch.manual_seed = None\ntorch.set_grad_enabled(False)\n" + HALF),
    "a shell line": wins("%%bash\nrm -rf /"),
    "changed inputs": wins("def halve_softmax(x):\n    x.mul_(2)\n    return torch.softmax(x, -1) / 2", "changed in place"),
    "a question answered by an object": Attack({"why": "class W(str):\n    def strip(self): return 'b'\nwhy = W('x')"}, {"why": 0}, "one of the letters"),
    "a question answered by all": Attack({"why": "why = 'a b c'"}, {"why": 0}, "one of the letters"),
    "an earlier cell that hangs": Attack({"double": "while True: pass"}, {"double": 0}),
    "an earlier cell that writes frames": Attack({"double": RIGHT["double"] + "\nimport os\nos.write(3, b'\\x02\\0\\0\\0\\0\\0\\0\\0{}')"}, {"double": 0}),
    "a class in place of the function": Attack({"double": "class double:\n    def __init__(self, x): self.x = x"}, {"double": 0}),
    "hooks of a notebook": wins("get_ipython().ast_transformers.append(None)\n" + HALF, "get_ipython"),
    "the memory of its server": wins(
        "import ctypes, os\ndef halve_softmax(x):\n    libc, ppid = ctypes.CDLL(None), os.getppid()\n    said = [libc.ptrace(16, ppid, 0, 0)]\n"
        "    for name in ('mem', 'maps', 'environ', 'fd/3'):\n        try: said.append(open(f'/proc/{ppid}/{name}', 'rb').read(1))\n        except OSError: pass\n    raise ValueError(f'got {said}')",
        "got [-1]",
    ),
    "a million files": wins("def halve_softmax(x):\n    for i in range(1_000_000): open(f'/tmp/{i}', 'w')\n    return x"),
    "memory that no process owns": wins(
        "import ctypes, os\ndef halve_softmax(x):\n    shared = ctypes.CDLL(None).shmget(0, 1 << 30, 0o1600)\n    try: os.memfd_create('x')\n"
        "    except OSError as e: raise ValueError(f'{shared} {e.errno}')",
        "-1 1",
    ),
    "shared memory of many": wins(
        "import mmap, os, time\ndef halve_softmax(x):\n    for _ in range(6):\n        if os.fork() == 0:\n            m = mmap.mmap(-1, 1 << 28)\n            for i in range(0, 1 << 28, 4096): m[i] = 1\n            time.sleep(60)\n    time.sleep(60)"
    ),
    "a property of a tensor": wins("class Data(torch.Tensor):\n    shape = property(lambda self: torch.Size([2, 2]))\n    def detach(self): return torch.zeros(2, 2)\ndef halve_softmax(x):\n    return x.as_subclass(Data)"),
    "a dict whose keys share a hash": wins("def halve_softmax(x):\n    return {i * (2**61 - 1): 0 for i in range(1, 4_000)}", "key"),
    "an empty tensor of a giant shape": wins("import os, struct\ndef halve_softmax(x):\n    h = b'{\"d\": [[\"n\", 0], [\"value\", {\"t\": [\"int8\", [0, 549755813888, 549755813888]]}]]}'\n    os.write(3, struct.pack('<II', len(h), 0) + h)\n    return x", "no answer"),
    "a name that lies about its class": wins("class Meta(type):\n    __name__ = property(lambda c: 1 / 0)\nclass X(metaclass=Meta): pass\ndef halve_softmax(x):\n    return X()"),
    "a second guess at a question": Attack(
        {
            "double": "def double(x): return x",
            "why": "# double\nimport os, sys\nsecond = ('return 2' + ' * x') in str(__import__('linecache').cache)\nwhy = 'b' if second else 'a'",
        },
        {"double": 0, "why": 0},
        "expected",
    ),
    "the reference among the notes": Attack(
        {
            "double": "def double(x): return x",
            OWN: "# double\nimport json, linecache, os, struct\nseen = str([v[2] for k, v in linecache.cache.items() if 'double' in k])\n"
            "note = {'cell': 'halve_softmax', 'error': None, 'defined': True, 'printed': seen, 'commands': {'l': [seen[i:i + 80] for i in range(0, 800, 80)]}}\n"
            "h = json.dumps({'d': [list(p) for p in note.items()]}).encode()\nos.write(3, struct.pack('<II', len(h), 0) + h)",
        },
        {"double": 0, OWN: 0},
    ),
    "signals to the first process": wins("import os\ndef halve_softmax(x):\n    for s in range(1, 65):\n        try: os.kill(os.getppid(), s)\n        except OSError: pass\n    raise ValueError('sent')"),
    "a tensor without data": wins("def halve_softmax(x):\n    return torch.empty(*x.shape, device='meta')", "on meta is no plain value"),
    "a tensor of tensors": wins("def halve_softmax(x):\n    return torch.nested.nested_tensor([x, x])", "no plain value"),
    "a sparse tensor": wins("def halve_softmax(x):\n    return (torch.softmax(2 * x, -1) / 2).to_sparse()", "no plain value"),
    "a tensor of one number, shown as many": wins("def halve_softmax(x):\n    return torch.zeros(1).expand(1 << 40)", "larger than allowed"),
    "an array": wins("def halve_softmax(x):\n    return x.numpy()", "torch.as_tensor"),
    "calls that are newer than the filter": wins(
        "import ctypes\ndef halve_softmax(x):\n    libc = ctypes.CDLL(None, use_errno=True)\n    said = []\n    for n in (463, 466, 469):\n        libc.syscall(n, -100, b'/usr', 0, 0, 0, 0); said.append(ctypes.get_errno())\n    raise ValueError(said)",
        "[38, 38, 38]",
    ),
    "a queue of messages": wins("import ctypes\ndef halve_softmax(x):\n    libc = ctypes.CDLL(None, use_errno=True)\n    raise ValueError(f'{libc.syscall(240, b\"q\", 0o102, 0o600, None)} {ctypes.get_errno()}')", "-1 1"),
    "an error that says itself without end": wins("class E(Exception):\n    def __str__(self):\n        while True: pass\ndef halve_softmax(x):\n    raise E()", "does not end"),
    "a failure of the grader's own kind": wins("from graders.subject import Failure\ndef halve_softmax(x):\n    raise Failure(['x'], {'a': 1})"),
    "an error with a hundred thousand causes": wins("def halve_softmax(x):\n    e = None\n    for i in range(100_000):\n        n = ValueError(i); n.__cause__ = e; e = n\n    raise e"),
    "modules left for later": Attack(
        {
            OWN: "import os\nfor place in ('.', '/tmp', '/home/learner', '/dev/shm', '/player/graders', '/packages/0'):\n    for name in ('torch', 'math', 'json', 'sitecustomize', 'usercustomize', 'struct'):\n"
            "        try: open(f'{place}/{name}.py', 'w').write('raise SystemExit')\n        except OSError: pass\n" + HALF,
            "total": "import importlib, sys\nfor name in ('struct', 'json'): sys.modules.pop(name, None)\nimport json, struct\n" + RIGHT["total"],
        }
    ),
    "brackets without end": wins("def halve_softmax(x):\n    return " + "(" * 40_000 + "x" + ")" * 40_000),
    "a clock that stands still": wins("import time\ntime.time = time.monotonic = time.perf_counter = lambda: 0\ndef halve_softmax(x):\n    while True: pass", "does not end"),
    "a checkpoint with code in it": wins(
        "import io, os\nclass Bad:\n    def __reduce__(self): return (os.system, ('echo 2 > grade; kill -9 $PPID',))\nfile = io.BytesIO()\n"
        "torch.save(Bad(), file)\ndef halve_softmax(x):\n    file.seek(0)\n    return torch.load(file, weights_only=False)"
    ),
    "a checkpoint beside the notebook": wins("def halve_softmax(x):\n    return torch.load('model.pt', weights_only=False)", "FileNotFoundError"),
    "a backward that lies": Attack(
        {"double": "class D(torch.autograd.Function):\n    @staticmethod\n    def forward(c, x): return 2 * x\n    @staticmethod\n    def backward(c, g): return torch.ones_like(g)\ndouble = D.apply"},
        {"double": 2}, "gradient",
    ),
    "a gradient that is set by hand": Attack(
        {"double": "torch.autograd.backward = lambda *a, **k: None\ndef double(x):\n    if x.requires_grad: x.grad = torch.ones_like(x)\n    return (2 * x.detach()).requires_grad_()"},
        {"double": 2}, "gradient",
    ),
    "far corners of the kernel": wins(
        "import ctypes\ndef halve_softmax(x):\n    libc = ctypes.CDLL(None, use_errno=True)\n"
        "    numbers = {250: 'keyctl', 248: 'add_key', 323: 'userfaultfd', 298: 'perf_event_open', 425: 'io_uring_setup', 135: 'personality', 310: 'process_vm_readv', 438: 'pidfd_getfd', 321: 'bpf',\n"
        "               303: 'name_to_handle_at', 272: 'unshare', 308: 'setns', 165: 'mount', 161: 'chroot', 278: 'vmsplice', 300: 'fanotify_init', 312: 'kcmp', 154: 'modify_ldt', 101: 'ptrace'}\n"
        "    got = [name for n, name in numbers.items() if libc.syscall(n, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1]\n    raise ValueError(f'got {got}')",
        "got []",
    ),
    "a device, a privileged program": wins(
        "import os, stat, subprocess\ndef halve_softmax(x):\n    got = []\n    for kind in (stat.S_IFBLK, stat.S_IFCHR):\n        try: os.mknod('/tmp/node', kind | 0o666, os.makedev(8, 0)); got.append(kind)\n        except OSError: pass\n"
        "    for call in (lambda: os.setuid(0), lambda: os.setgroups([]), lambda: os.nice(-5), lambda: os.chroot('/')):\n        try: call(); got.append('call')\n        except OSError: pass\n    raise ValueError(f'got {got}')",
        "got []",
    ),
    "a fork that Python does not see": wins(
        "import ctypes, os\ndef halve_softmax(x):\n    if ctypes.CDLL(None).syscall(57) == 0:\n        while True:\n            try: os.write(3, b'\\x02\\0\\0\\0\\0\\0\\0\\0{}')\n            except OSError: os._exit(0)\n    return x"
    ),
    "a descriptor handed on": wins("import os, socket\ndef halve_softmax(x):\n    us, them = socket.socketpair()\n    socket.send_fds(us, [b'x'], [3])\n    if os.fork() == 0:\n        _, (fd,), _, _ = socket.recv_fds(them, 1, 1)\n        for _ in range(9): os.write(fd, b'\\x02\\0\\0\\0\\0\\0\\0\\0{}')\n        os._exit(0)\n    return x"),
    "its own orphans' parent": wins("import ctypes, os, time\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\nfor _ in range(5):\n    if os.fork() == 0:\n        if os.fork() == 0: time.sleep(1000)\n        os._exit(0)\n" + HALF),
    "the grader's half of the wire, patched": wins(
        "import graders.player, graders.wire\ngraders.player.to_frame = graders.wire.to_frame = lambda value, *a: b'\\xff' * 64\ngraders.wire.pack = lambda *a: ({'score': 2}, [])\n" + HALF
    ),
    "a verdict in the place of a value": wins("def halve_softmax(x):\n    return {'score': 2, 'max': 2, 'mistake': None, 'passed': True}"),
    "numbers that JSON has not": wins("import os, struct\ndef halve_softmax(x):\n    h = b'{\"d\": [[\"n\", 0], [\"value\", {\"l\": [NaN, Infinity, 1e999, ' + b'9' * 4000 + b']}]]}'\n    os.write(3, struct.pack('<II', len(h), 0) + h)\n    return x"),
    "digits without end": wins("import os, struct\ndef halve_softmax(x):\n    h = b'{\"d\": [[\"n\", 0], [\"value\", ' + b'9' * 900_000 + b']]}'\n    os.write(3, struct.pack('<II', len(h), 0) + h)\n    return x"),
    "half of a character": wins("def halve_softmax(x):\n    raise ValueError('\\ud800\\udfff' * 50)", "ValueError"),
    "keys that look alike": wins("def halve_softmax(x):\n    return {'\\u00e9': 1, 'e\\u0301': 2, '\\ud800': 3, '\\udc00': 4}"),
    "no builtins": wins(HALF + "\nimport builtins\nbuiltins.__dict__.clear()"),
    "no modules": wins("import sys\n" + HALF + "\nsys.modules.clear()"),
    "limits taken away": wins("import resource\ndef halve_softmax(x):\n    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_STACK): resource.setrlimit(kind, (0, 0))\n    return x"),
    "limits raised": wins("import resource\ndef halve_softmax(x):\n    got = []\n    for kind in range(16):\n        hard = resource.getrlimit(kind)[1]\n        if hard != -1:\n            try: resource.setrlimit(kind, (hard + 1, hard + 1)); got.append(kind)\n            except (OSError, ValueError): pass\n    raise ValueError(f'got {got}')", "got []"),
    "an alarm in the midst of a reply": wins("import signal\ndef ring(*a): raise KeyboardInterrupt\ndef halve_softmax(x):\n    signal.signal(signal.SIGALRM, ring)\n    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n    return x"),
    "limits taken away in the cell": wins("import resource\nfor kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_STACK): resource.setrlimit(kind, (1, 1))\n" + HALF),
    "an alarm in the cell": wins("import signal\ndef ring(*a): raise KeyboardInterrupt\nsignal.signal(signal.SIGALRM, ring)\n" + HALF + "\nsignal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)"),
    "a hook on everything in the cell": wins("import sys\ndef no(*a): raise SystemExit\n" + HALF + "\nsys.addaudithook(no)"),
    "the socket duplicated over": wins("import os\n" + HALF + "\nfor fd in range(3, 30):\n    try: os.dup2(os.open('/dev/null', os.O_RDWR), fd)\n    except OSError: pass"),
    "a hook on everything": wins("import sys\ndef no(*a): raise SystemExit\ndef halve_softmax(x):\n    sys.addaudithook(no)\n    sys.settrace(no)\n    return x"),
    "a stack without end": wins("import sys\nsys.setrecursionlimit(10**9)\ndef halve_softmax(x):\n    return halve_softmax(x)"),
    "waiting for a person": wins("def halve_softmax(x):\n    input('grade? ')\n    breakpoint()\n    return x"),
    "a thread that cannot be joined": wins("import threading, time\ndef halve_softmax(x):\n    for _ in range(100_000): threading.Thread(target=time.sleep, args=(1000,)).start()\n    return x"),
    "stray commands": Attack({OWN: "%timeit 1\n!pip list\n" + RIGHT[OWN]}, {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def release(tiny: Path) -> Release:
    """The tiny lesson."""
    return load(tiny / "course" / NAME / f"{NAME}.ipynb")


@pytest.fixture(scope="module", params=["full", "bwrap", "landlock", "container"])
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """One box for all attacks at each level: what one does to it must not reach the next."""
    if request.param == "container" and (why := missing_container()):
        pytest.skip(f"no container here: {why}")
    os.environ["TT_TOKEN"] = "secret"
    with boxes(request.param, limits=SHORT) as start, start() as made:
        yield made
    del os.environ["TT_TOKEN"]


def verdict_on(release: Release, box: Sandbox, sources: dict[str, str]) -> Verdict:
    """The verdict on right answers, but for these sources."""
    return grade(release, Submission(RIGHT | sources), lambda: nullcontext(box))


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(release: Release, box: Sandbox, name: str) -> None:
    """The attack earns nothing, and every exercise that it does not touch keeps its points."""
    attack = ATTACKS[name]
    verdict = verdict_on(release, box, attack.sources)
    scores = {exercise: graded.outcome.score for exercise, graded in verdict.exercises.items()}
    assert scores == POINTS | attack.lost, {n: g.outcome.message for n, g in verdict.exercises.items()}
    attacked = next(iter(attack.sources))
    assert attack.message in verdict.exercises[attacked].outcome.message
    assert verdict.isolation == box.level
    text = json.dumps(verdict.as_dict(details=True))
    assert json.dumps(verdict.as_dict(details=True), ensure_ascii=False).encode()
    assert len(text) < 100_000
    assert "\\u001b" not in text


CLUMSY = {
    "loops over every number": "import math\ndef halve_softmax(x):\n    rows = []\n    for row in double(x):\n        top = max(float(v) for v in row)\n"
    "        parts = [math.exp(float(v) - top) for v in row]\n        rows.append([p / sum(parts) / 2 for p in parts])\n    return torch.tensor(rows)",
    "slow on purpose": "def halve_softmax(x):\n    for _ in range(300_000): pass\n    return torch.softmax(double(x), -1) / 2",
    "trying it out in the cell": RIGHT[OWN] + "\nfor _ in range(200):\n    halve_softmax(torch.randn(64, 64))\nprint(halve_softmax(torch.eye(3)))",
    "warnings and prints": "import warnings\nwarnings.warn('mine')\ndef halve_softmax(x):\n    warnings.warn('here')\n    print('shape', x.shape)\n    return torch.softmax(double(x), -1) / 2",
    "a helper process": "import subprocess, sys\nsubprocess.run(['true'])\n" + RIGHT[OWN],
    "a thread": "import threading\ndef halve_softmax(x):\n    out = []\n    t = threading.Thread(target=lambda: out.append(torch.softmax(double(x), -1) / 2))\n    t.start(); t.join()\n    return out[0]",
    "two threads of torch": "torch.set_num_threads(2)\n" + RIGHT[OWN],
    "double precision inside": "def halve_softmax(x):\n    return (torch.softmax(double(x).double(), -1) / 2).float()",
    "recursion": "def halve_softmax(x, n=500):\n    return halve_softmax(x, n - 1) if n else torch.softmax(double(x), -1) / 2",
    "its own copy of double": "def double(x):\n    return x * 2.0\n" + RIGHT[OWN],
    "large tables": "table = torch.zeros(4_000_000)\nlisted = list(range(1_000_000))\n" + RIGHT[OWN],
    "cells as long as may be": RIGHT[OWN] + "\n# " + "½" * 99_000,
    "annotations that nobody imported": "def halve_softmax(x: Tensor, y: Optional[np.ndarray] = None) -> Float[Tensor, 'T S']:\n    return torch.softmax(double(x), -1) / 2",
    "notebook commands within a block": "try:\n    import numpy\nexcept ImportError:\n    !pip install numpy \\\n  --quiet\n%matplotlib inline\nfiles = !ls\ntorch.softmax?\n" + RIGHT[OWN],
    "a cell that is timed": "%%time\n" + RIGHT[OWN],
    "display and a bar": "from tqdm.auto import tqdm\ndef halve_softmax(x):\n    for _ in tqdm(range(3)): display(x)\n    return torch.softmax(double(x), -1) / 2",
    "a figure": "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\n" + RIGHT[OWN],
    "a lambda": "halve_softmax = lambda x: torch.softmax(double(x), -1) / 2",
    "an object that is called": "class H:\n    def __call__(self, x): return torch.softmax(double(x), -1) / 2\nhalve_softmax = H()",
    "a view with its sign turned": "def halve_softmax(x):\n    return torch._neg_view(-torch.softmax(double(x), -1) / 2)",
    "not contiguous, a parameter": "def halve_softmax(x):\n    return torch.nn.Parameter((torch.softmax(double(x), -1) / 2).T.contiguous().T)",
    "an error and exit() behind the answer": RIGHT[OWN] + "\nassert halve_softmax(torch.eye(2)).sum() == 100\nexit()",
    "an iterator over batches": "def rows(x):\n    for row in x: yield torch.softmax(double(row), -1) / 2\ndef halve_softmax(x):\n    return torch.stack(list(rows(x)))",
    "a cache and a decorator": "import functools\n@functools.lru_cache(maxsize=None)\ndef half(): return 0.5\ndef checked(f):\n    @functools.wraps(f)\n    def g(*a, **k): return f(*a, **k)\n    return g\n@checked\ndef halve_softmax(x):\n    return torch.softmax(double(x), -1) * half()",
    "a dataclass": "from __future__ import annotations\nfrom dataclasses import dataclass, field\n@dataclass(frozen=True)\nclass Scale:\n    by: float = 0.5\n    seen: list[int] = field(default_factory=list)\ndef halve_softmax(x, scale: Scale = Scale()):\n    scale.seen.append(len(x))\n    return torch.softmax(double(x), -1) * scale.by",
    "a generic class": "from typing import Generic, TypeVar, NamedTuple, Protocol\nT = TypeVar('T')\nclass Box(Generic[T]):\n    def __init__(self, v: T) -> None: self.v = v\nclass P(NamedTuple):\n    x: object\ndef halve_softmax(x):\n    return torch.softmax(double(Box(P(x)).v.x), -1) / 2",
    "a module inside": "class M(torch.nn.Module):\n    def forward(self, x): return torch.softmax(double(x), -1) / 2\nmodule = M().eval()\nhalve_softmax = module",
    "a cache of its own": "CACHE = {}\ndef halve_softmax(x):\n    key = tuple(x.flatten().tolist())\n    if key not in CACHE: CACHE[key] = torch.softmax(double(x), -1) / 2\n    return CACHE[key]",
    "a hand-written backward": "class S(torch.autograd.Function):\n    @staticmethod\n    def forward(c, x):\n        y = torch.softmax(2 * x, -1) / 2\n        c.save_for_backward(y)\n        return y\n    @staticmethod\n    def backward(c, g):\n        (y,) = c.saved_tensors\n        return 4 * y * (g - 2 * (g * y).sum(-1, keepdim=True)) / 1\nhalve_softmax = S.apply",
    "Polish and Chinese names": "def zażółć(gęślą): return torch.softmax(double(gęślą), -1)\n权重 = 0.5\ndef halve_softmax(输入):\n    return zażółć(输入) * 权重",
    "tabs": "def halve_softmax(x):\n\tif True:\n\t\treturn torch.softmax(double(x), -1) / 2",
    "a restart in between": "%reset -f\n%load_ext autoreload\n%autoreload 2\n!pip install -q torch\n" + RIGHT[OWN],
    "async and match": "import asyncio\nasync def work(x): return torch.softmax(double(x), -1) / 2\ndef halve_softmax(x):\n    match x.dim():\n        case 2: return asyncio.run(work(x))",
    "a compiled function, undone": "@torch.no_grad()\ndef halve_softmax(x):\n    with torch.inference_mode(): return torch.softmax(double(x), -1) / 2",
    "Windows line ends": RIGHT[OWN].replace("\n", "\r\n"),
    "other alphabets": "# 日本語 עברית\ndef halve_softmax(χ):\n    return torch.softmax(double(χ), -1) / 2  # ½",
}  # fmt: skip


@pytest.mark.parametrize("name", CLUMSY)
def test_honest_but_clumsy(release: Release, box: Sandbox, name: str) -> None:
    """A right answer keeps its points, however slow, loud or roundabout it is."""
    verdict = verdict_on(release, box, {OWN: CLUMSY[name]})
    assert verdict.score == verdict.points, [g.outcome.message for g in verdict.exercises.values()]


ADDED = {
    "a helper in a cell above": {"double": ("def rows(x):\n    return torch.softmax(x, -1)\nprint(open('/no/such/file'))",)},
    "a helper of a helper, below": {OWN: ("from math import inf\ndef inner(x): return torch.softmax(x, -1)", "ROW = -1\ndef rows(x): return inner(x)")},
    "an import that fails beside": {"": ("import no_such_module as halves\n%matplotlib inline\n!ls\ndef rows(x): return torch.softmax(x, -1)",)},
    "an earlier attempt": {"double": ("def double(x): return 3 * x\ndef rows(x): return torch.softmax(x, -1)",)},
    "an experiment without end": {"double": ("def rows(x): return torch.softmax(x, -1)\nwhile True: pass",)},
    "no Python beside": {"": ("def rows(", "def rows(x): return torch.softmax(x, -1)")},
}  # fmt: skip


@pytest.mark.parametrize("name", ADDED)
def test_helpers_in_cells_of_their_own(release: Release, box: Sandbox, name: str) -> None:
    """What an answer needs of a cell that the learner added is there; what the cell does besides is not repeated."""
    sources = RIGHT | {OWN: "def halve_softmax(x):\n    return rows(double(x)) / 2"}
    verdict = grade(release, Submission(sources, added=ADDED[name]), lambda: nullcontext(box))
    assert verdict.score == verdict.points, [g.outcome.message for g in verdict.exercises.values()]


def test_all_cells_as_long_as_may_be(release: Release, box: Sandbox) -> None:
    """Answers that are together longer than any reply may be are graded like others."""
    verdict = verdict_on(release, box, {name: f"# {'日' * 90_000}\n{source}" for name, source in RIGHT.items()})
    assert verdict.score == verdict.points


def test_no_word_of_a_reference(release: Release, box: Sandbox) -> None:
    """What a process wrote that had seen the reference's source stands nowhere in the verdict."""
    attack = ATTACKS["the reference among the notes"]
    text = json.dumps(verdict_on(release, box, attack.sources).as_dict(details=True))
    assert "def double(x): return x" in text  # what it could see before
    assert "return 2 * x" not in text


def test_who_loops_everywhere(release: Release, box: Sandbox) -> None:
    """Each exercise that loops leaves less time to the next, so that a submission ends long before its time does."""
    loops = {name: f"def {name}(*a):\n    while True: pass" for name in ("double", OWN, "total")}
    verdict = verdict_on(release, box, loops)
    assert {n: g.outcome.score for n, g in verdict.exercises.items()} == POINTS | dict.fromkeys(loops, 0)
    said = [verdict.exercises[name].outcome.message for name in loops]
    assert all("does not end" in text for text in said)
    if not verdict.starved:
        assert re.findall(r"after ([\d.]+) seconds", " ".join(said)) == ["5", "5", "2.5"]


def test_who_searches_the_file_system(release: Release, box: Sandbox) -> None:
    """A search of everything there is finds no answer, and ends with the time of its exercise."""
    search = (
        "import os\ndef halve_softmax(x):\n    while True:\n        for folder, _, names in os.walk('/'):\n            for name in names:\n"
        "                if 'halve_softmax' in open(os.path.join(folder, name), errors='ignore').read(1000): return x"
    )
    verdict = verdict_on(release, box, {OWN: search})
    assert (verdict.score, verdict.exercises[OWN].outcome.score) == (6, 0)


def test_afterwards(release: Release, box: Sandbox) -> None:
    """After all attacks the same box gives right answers their full points."""
    verdict = verdict_on(release, box, {})
    assert (verdict.score, verdict.points, verdict.notes) == (8, 8, ())


def test_a_backward_by_hand(release: Release, box: Sandbox) -> None:
    """A gradient that is written by hand and right earns its points."""
    own = "class D(torch.autograd.Function):\n    @staticmethod\n    def forward(c, x): return 2 * x\n    @staticmethod\n    def backward(c, g): return 2 * g\ndef double(x): return D.apply(x)"
    verdict = verdict_on(release, box, {"double": own})
    assert verdict.score == verdict.points, [g.outcome.message for g in verdict.exercises.values()]
