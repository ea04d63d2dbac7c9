"""Limits of control groups, read from trees of files as systems and containers show them."""

import sys
from pathlib import Path

import pytest
from needs import on_linux

if sys.platform != "linux":
    pytest.skip("needs Linux", allow_module_level=True)

from pio.system.control_group import cpu_quota, free_memory

if sys.platform == "linux":
    from pio.system.linux import Linux
pytestmark = on_linux

UNLIMITED = "9223372036854771712"  # version 1
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = """31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 {top} /sys/fs/cgroup/memory rw master:9 - cgroup cgroup rw,memory
"""


@pytest.fixture
def system(tmp_path):
    def make(groups: str, mounts: str, files: dict[str, str]) -> Path:
        for path, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
            place = tmp_path / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text + "\n")
        return tmp_path

    return make


def v1(folder, limit, used, *, stat="", **more):
    at = f"sys/fs/cgroup/memory{folder}"
    files = {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": stat, **more}
    return {f"{at}/{name}": text for name, text in files.items()}


def v2(folder, limit, used, *, stat="", **more):
    files = {"memory.max": limit, "memory.current": used, "memory.stat": stat}
    files |= {name.replace("_", "."): text for name, text in more.items()}
    return {f"sys/fs/cgroup{folder}/{name}": text for name, text in files.items()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (v2("/a.slice/b.service", "1000", "900"), 100),
        (v2("/a.slice/b.service", "max", "900"), None),
        (v2("/a.slice/b.service", "1000", "1001"), 0),
        (v2("/a.slice/b.service", "1000", "900", stat="anon 250\nfile 640\nactive_file 400\ninactive_file 200"), 700),
        (v2("/a.slice/b.service", "1000", "300", stat="active_file 400\ninactive_file 200"), 1000),
        (v2("/a.slice/b.service", "max", "900") | v2("/a.slice", "5000", "4900"), 100),
        (v2("/a.slice/b.service", "1000", "100") | v2("/a.slice", "5000", "4900"), 100),
        (v2("/a.slice/b.service", "1000", "100") | v2("/a.slice", "5000", "400"), 900),
        (v2("/a.slice/b.service", "1000", "500", memory_high="700"), 200),
        (v2("/a.slice/b.service", "1000", "500", memory_high="max"), 500),
        (v2("/other", "10", "9"), None),
        (v2("", "1000", "1"), 999),
    ],
)
def test_memory_of_version_2(system, files, expected):
    assert free_memory(system("0::/a.slice/b.service", V2, files)) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (v1("/docker/0a", "1000", "900"), 100),
        (v1("/docker/0a", UNLIMITED, "900"), None),
        (v1("/docker/0a", "1000", "900", stat="inactive_file 1\ntotal_inactive_file 200\ntotal_active_file 50"), 350),
        (v1("/docker/0a", UNLIMITED, "900") | v1("/docker", "2000", "1950"), 50),
        (v1("/docker/0a", "1000", "900", stat="hierarchical_memory_limit 950"), 50),
        (v1("/docker/0a", UNLIMITED, "900", stat="hierarchical_memory_limit 950"), 50),
        (v1("/docker/0a", UNLIMITED, "900", stat=f"hierarchical_memory_limit {UNLIMITED}"), None),
        (v1("/docker/0a", "1000", "100") | v1("/docker", "200", "199", **{"memory.use_hierarchy": "0"}), 900),
        (v1("/docker/0a", "1000", "100", **{"memory.use_hierarchy": "0"}), 900),
        (v1("/docker/0a", "1000", "100") | v1("/docker", "200", "199", **{"memory.use_hierarchy": "1"}), 1),
    ],
)
def test_memory_of_version_1(system, files, expected):
    groups = "4:cpu,cpuacct:/docker/0a\n3:memory:/docker/0a\n1:name=systemd:/docker/0a"
    assert free_memory(system(groups, V1.format(top="/"), files)) == expected


@pytest.mark.parametrize("top", ["/docker/0a", "/somewhere/else", "/.."])
def test_a_container_sees_its_own_group_where_all_are_usually(system, top):
    """Its group's path is that of the host, and the folders are those of the group itself."""
    files = v1("", "1000", "900") | {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    root = system("4:cpu,cpuacct:/docker/0a\n3:memory:/docker/0a", V1.format(top=top), files)
    assert (free_memory(root), cpu_quota(root)) == (100, 1.5)


def test_a_group_that_is_mounted_with_those_below_it(system):
    mounts = V1.format(top="/docker/0a")
    files = v1("/inner", "1000", "900") | v1("", "5000", "4950")
    assert free_memory(system("3:memory:/docker/0a/inner", mounts, files)) == 50


def test_both_versions_at_once(system):
    """Memory in version 1, all else in the tree of version 2, as a hybrid system has it."""
    mounts = V1.format(top="/") + "38 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    files = v1("/a", "1000", "400") | {"sys/fs/cgroup/unified/a/cpu.max": "200000 100000"}
    root = system("3:memory:/a\n0::/a", mounts, files)
    assert (free_memory(root), cpu_quota(root)) == (600, 2.0)


def test_a_tree_that_is_mounted_elsewhere(system):
    mounts = r"30 23 0:26 / /run/my\040groups rw - cgroup2 none rw" + "\n"
    files = {"run/my groups/a/cpu.max": "100000 100000", "run/my groups/a/memory.max": "70"}
    root = system("0::/a", mounts, files | {"run/my groups/a/memory.current": "30"})
    assert (free_memory(root), cpu_quota(root)) == (40, 1.0)


def test_usual_places_where_the_system_tells_of_no_mounts(system):
    root = system("0::/a", "", {"sys/fs/cgroup/a/cpu.max": "100000 100000"} | v2("/a", "100", "1"))
    assert (free_memory(root), cpu_quota(root)) == (99, 1.0)


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("max 100000", "max 100000", None),
        ("150000 100000", "max 100000", 1.5),
        ("max 100000", "50000 100000", 0.5),
        ("400000 100000", "250000 100000", 2.5),
        ("100000", "", None),
        ("100000 0", "", None),
        ("", "", None),
    ],
)
def test_cores_of_version_2(system, inner, outer, expected):
    files = {"sys/fs/cgroup/a/b/cpu.max": inner, "sys/fs/cgroup/a/cpu.max": outer}
    assert cpu_quota(system("0::/a/b", V2, files)) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", None), ("100000", 1.0), ("350000", 3.5)])
def test_cores_of_version_1(system, quota, expected):
    at = "sys/fs/cgroup/cpu,cpuacct/docker/0a"
    files = {f"{at}/cpu.cfs_quota_us": quota, f"{at}/cpu.cfs_period_us": "100000"}
    assert cpu_quota(system("4:cpu,cpuacct:/docker/0a", V1.format(top="/"), files)) == expected


@pytest.mark.parametrize(("quota", "expected"), [("50000", 1), ("150000", 1), ("100000", 1)])
def test_part_of_a_core_counts_as_none_but_one_there_is_always(system, quota, expected):
    files = {"sys/fs/cgroup/a/cpu.max": f"{quota} 100000"}
    assert Linux(system("0::/a", V2, files)).core_count() == expected


def test_a_system_without_any_of_this(tmp_path):
    assert cpu_quota(tmp_path) is None and free_memory(tmp_path) is None
    assert Linux(tmp_path).available_memory() is None and Linux(tmp_path).core_count() >= 1


@pytest.mark.parametrize("line", ["", ":", "0::", "rubbish", "0:\0:/a", "3:memory"])
def test_lines_that_mean_nothing(system, line):
    root = system(line, "36 - cgroup2\n 1 2 3 - cgroup\n", {})
    assert cpu_quota(root) is None and free_memory(root) is None


def test_free_memory_of_the_machine_counts_too(system):
    files = {"proc/meminfo": "MemTotal: 99 kB\nMemAvailable:   2 kB", **v2("/a", "5000", "1000")}
    assert Linux(system("0::/a", V2, files)).available_memory() == 2048
    assert Linux(system("0::/a", V2, v2("/a", "1500", "1000"))).available_memory() == 500
