"""Selectors: what a cgroup says, which forms there are, and which processes an entry means."""

import grp
import pwd

import pytest

from accredit_client.daemon.selectors import (
    cgroup_selectors,
    check_selector,
    container_of,
    matches,
    units_of,
    unix_selectors,
)
from accredit_client.errors import InvalidSelector

ID = "3b1f0c6ad4e94ad1b1d6f0a2f1a59c7d3b1f0c6ad4e94ad1b1d6f0a2f1a59c7d"
OTHER = "f" * 64
BURSTABLE = "/kubepods.slice/kubepods-burstable.slice"
KUBELET = "/kubelet.slice/kubelet-kubepods.slice"
POD = "pod0d206349_0faf_445c_8c3f_2d2153784f15"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        # Docker: systemd's driver, cgroupfs, and a process deeper inside.
        (f"/system.slice/docker-{ID}.scope", f"container:id:{ID}"),
        (f"/docker/{ID}", f"container:id:{ID}"),
        (f"/docker/{ID}/init.scope", f"container:id:{ID}"),
        (f"/machine.slice/machine-agents.slice/docker-{ID}.scope", f"container:id:{ID}"),
        # containerd: nerdctl, Kubernetes with either driver, the mixture.
        (f"/system.slice/nerdctl-{ID}.scope", f"container:id:{ID}"),
        (
            f"{BURSTABLE}/kubepods-burstable-{POD}.slice/cri-containerd-{ID}.scope",
            f"container:id:{ID}",
        ),
        (
            f"{KUBELET}/kubelet-kubepods-{POD}.slice/cri-containerd-{ID}.scope",
            f"container:id:{ID}",
        ),
        (
            f"/kubepods/besteffort/pod0d206349-0faf-445c-8c3f-2d2153784f15/{ID}",
            f"container:id:{ID}",
        ),
        (f"/kubepods/pod{'0' * 32}/{ID}", f"container:id:{ID}"),
        (
            f"/system.slice/containerd.service/kubepods-besteffort-{POD}.slice:cri-containerd:{ID}",
            f"container:id:{ID}",
        ),
        # CRI-O.
        (f"/kubepods.slice/kubepods-{POD}.slice/crio-{ID}.scope", f"container:id:{ID}"),
        (
            f"/kubepods/burstable/pod0d206349-0faf-445c-8c3f-2d2153784f15/crio-{ID}",
            f"container:id:{ID}",
        ),
        # Podman: root's, with its own sub-cgroup, and a user's.
        (f"/machine.slice/libpod-{ID}.scope", f"container:id:{ID}"),
        (f"/machine.slice/libpod-{ID}.scope/container", f"container:id:{ID}"),
        (f"/libpod_parent/libpod-{ID}", f"container:id:{ID}"),
        (
            f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
            f"container:rootless_id:{ID}",
        ),
        (
            f"/user.slice/user-1000.slice/user@1000.service/app.slice/docker-{ID}.scope",
            f"container:rootless_id:{ID}",
        ),
        # The outermost container is the one that the host made.
        (f"/docker/{ID}/docker/{OTHER}", f"container:id:{ID}"),
        (f"/system.slice/docker-{ID}.scope/docker-{OTHER}.scope", f"container:id:{ID}"),
        # The runtime's own monitor is not the container.
        (f"/machine.slice/libpod-conmon-{ID}.scope", None),
        (f"/kubepods.slice/kubepods-{POD}.slice/crio-conmon-{ID}.scope", None),
        # Whoever was given a cgroup can name what is below it, and is not believed.
        (f"/system.slice/worker.service/docker-{ID}.scope", None),
        (f"/system.slice/worker.service/docker/{ID}", None),
        (f"/user.slice/user-1000.slice/session-3.scope/docker-{ID}.scope", None),
        # Nearly.
        (f"/system.slice/docker-{ID[:-1]}.scope", None),
        (f"/system.slice/docker-{ID}0.scope", None),
        (f"/system.slice/docker-{ID.upper()}.scope", None),
        (f"/docker/{ID}x", None),
        (f"/kubepods/extra/pod{'0' * 32}/{ID}", None),
        (f"docker/{ID}", None),
        ("/", None),
        ("", None),
    ],
)
def test_containers(path: str, said: str | None) -> None:
    """A container is told by the whole path that its runtime makes, and by no other."""
    assert container_of(path) == said


@pytest.mark.parametrize(
    ("path", "unit", "user_unit"),
    [
        ("/system.slice/nginx.service", "nginx.service", None),
        ("/system.slice/system-agent.slice/agent@eu.service", "agent@eu.service", None),
        ("/system.slice/nginx.service/workers", "nginx.service", None),
        ("/system.slice/a.service/b.service", "a.service", None),
        ("/init.scope", "init.scope", None),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", None),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/agent.service",
            "user@1000.service",
            "agent.service",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/nginx.service/x",
            "user@1000.service",
            "nginx.service",
        ),
        ("/user.slice/user-1000.slice/user@1000.service", "user@1000.service", None),
        ("/system.slice/_cpu.service", "cpu.service", None),
        ("/system.slice/srv-data\\x2done.mount", "srv-data\\x2done.mount", None),
        (f"/system.slice/docker-{ID}.scope", f"docker-{ID}.scope", None),
        ("/system.slice", None, None),
        ("/docker/x/nginx.service", None, None),
        ("/system.slice/nginx.service ", None, None),
        ("/", None, None),
    ],
)
def test_units(path: str, unit: str | None, user_unit: str | None) -> None:
    """A unit is the outermost one; a user's own is told apart from the system's."""
    assert units_of(path) == (unit, user_unit)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0::/system.slice/a.service\n", {"systemd:unit:a.service"}),
        (
            "9:name=systemd:/system.slice/a.service\n8:pids:/system.slice/a.service\n0::/\n",
            {"systemd:unit:a.service"},
        ),
        (
            "2:name=systemd:/system.slice/a.service\n0::/system.slice/a.service\n",
            {"systemd:unit:a.service"},
        ),
        ("12:cpu,cpuacct:/system.slice/a.service\n1:name=systemd:/\n", set()),
        ("2:name=systemd:/system.slice/a.service\n0::/system.slice/b.service\n", set()),
        (f"3:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n", {f"container:id:{ID}"}),
        (f"3:memory:/docker/{ID}\n1:name=systemd:/docker/{OTHER}\n", set()),
        (f"0::/system.slice/docker-{ID}.scope:x\n", set()),
        (f"0::/../docker/{ID}\n", set()),
        (f"0::/docker/{ID}/..\n", set()),
        (f"0::/docker/{ID}\nnonsense\n", set()),
        # Other ends of lines are part of a name, which whoever was given a cgroup chooses.
        (f"0::/delegated/x\x0c1::/docker/{ID}\n", set()),
        (f"0::/delegated/x\u20281:name=systemd:/docker/{ID}\n", set()),
        (f"0::/delegated/x\r1:memory:/docker/{ID}\n", set()),
        ("0::/\n" * 65, set()),
        ("", set()),
    ],
)
def test_cgroup_file(text: str, said: set[str]) -> None:
    """Version 1, version 2 and both; what contradicts itself says nothing."""
    found = cgroup_selectors(text)
    assert {each for each in found if not each.startswith("systemd:unit:docker-")} == said


def test_unix_selectors_have_names_and_numbers() -> None:
    """Numbers are always there, names where the host has them, the program where it is known."""
    nobody = pwd.getpwnam("nobody")
    group = grp.getgrgid(nobody.pw_gid).gr_name
    said = unix_selectors(
        uid=nobody.pw_uid, gid=nobody.pw_gid, groups={0, 4242}, path="/bin/x", sha256="0" * 64
    )
    assert said == {
        f"unix:uid:{nobody.pw_uid}",
        "unix:user:nobody",
        f"unix:gid:{nobody.pw_gid}",
        f"unix:group:{group}",
        "unix:supplementary_gid:0",
        "unix:supplementary_group:root",
        "unix:supplementary_gid:4242",
        "unix:path:/bin/x",
        f"unix:sha256:{'0' * 64}",
    }
    assert unix_selectors(uid=4242, gid=4242, groups=set(), path=None, sha256=None) == {
        "unix:uid:4242",
        "unix:gid:4242",
    }


def test_an_entry_means_who_has_all_of_it() -> None:
    """All selectors of an entry, and at least one: nothing selects nobody."""
    process = {"unix:uid:1", "unix:gid:2"}
    assert matches({"unix:uid:1"}, process)
    assert matches({"unix:uid:1", "unix:gid:2"}, process)
    assert not matches({"unix:uid:1", "unix:gid:3"}, process)
    assert not matches(set(), process)
    assert not matches({"unix:uid:1"}, set())


@pytest.mark.parametrize(
    "text",
    [
        "unix:uid:0",
        "unix:uid:1001",
        "unix:user:summarizer",
        "unix:supplementary_group:agents",
        "unix:path:/usr/bin/python3.11",
        "unix:path:/opt/a b/run:1",
        f"unix:sha256:{'a' * 64}",
        "systemd:unit:agent@eu.service",
        "systemd:user_unit:agent.service",
        f"container:id:{ID}",
    ],
)
def test_selector_of_an_entry(text: str) -> None:
    """A selector that a process can have is taken as it is."""
    assert check_selector(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix",
        "unix:uid",
        "unix:uid:",
        "unix:uid:-1",
        "unix:uid:01",
        "unix:uid:root",
        "unix:uid: 1",
        "unix:pid:1",
        "UNIX:uid:1",
        "unix:user:a b",
        "unix:user:a\n",
        "unix:path:usr/bin/x",
        "unix:path:/usr//bin",
        "unix:path:/",
        f"unix:path:/{'x' * 512}",
        f"unix:sha256:{'A' * 64}",
        "unix:sha256:sha256:" + "a" * 64,
        "systemd:unit:agent",
        "container:id:abc",
        "code:sha256:abc",
        "docker:label:x:y",
    ],
)
def test_selector_that_nobody_has_is_refused(text: str) -> None:
    """A kind that is not known, or a value that cannot be, is an error and not a silent no."""
    with pytest.raises(InvalidSelector):
        check_selector(text)
