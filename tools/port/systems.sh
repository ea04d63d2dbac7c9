# Read by the programs beside it. Makes other systems of the packages of Debian and of Python, each in a folder, and
# runs commands in them, in namespaces of their own: nothing is installed on this machine, and nothing on it changes.
# shellcheck shell=bash
set -euo pipefail
shopt -s inherit_errexit

PATH=$PATH:/usr/sbin:/sbin # of chroot
project=$PWD
cache=${PORT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pio-port}
SKIPPED=77 # the exit code of what cannot be run on this machine

say() { echo "$system: $* (after $SECONDS s)" >&2; }

skip() {
  echo "$system: skipped, this machine has no $*" >&2
  exit "$SKIPPED"
}

# can_mount TYPE PLACE [OPTION]...: whether a file system can be had in namespaces of one's own.
can_mount() { unshare --map-root-user --mount mount -t "$1" "${@:3}" "$1" "$2" 2>/dev/null; }

# Looks whether systems can be made and entered here.
need() {
  local tool
  [ -f pyproject.toml ] || skip "pyproject.toml in the current folder"
  [ "$(uname -sm)" = "Linux x86_64" ] || skip "Linux on x86-64"
  for tool in apt-get dpkg-deb unshare setpriv flock python3; do
    command -v "$tool" >/dev/null || skip "$tool"
  done
  python3 -c 'import pip, tomllib' 2>/dev/null || skip "pip of Python 3.11 or newer"
  [ -r "$keyring" ] || skip "keys of Debian's archive"
  unshare --map-root-user --mount --pid --fork --kill-child true 2>/dev/null || skip "user namespaces"
  can_mount overlay /tmp -o lowerdir=/usr:/etc,userxattr || skip "overlay file systems in user namespaces"
}

# once NAME COMMAND...: has a command make a folder, whose name it gets last, and says where it is. One at a time, and
# all or nothing: what was interrupted is made anew, and who comes while it is made waits. Another command, or another
# way to do what it says, makes another folder.
once() {
  local stamp made lock
  stamp=$(declare -f "$2" unpack debian && echo "$@")
  made=$cache/$1-$(sha256sum <<<"$stamp" | head -c 12)
  shift
  mkdir -p "$cache"
  exec {lock}>"$made.lock"
  flock "$lock"
  if [ ! -d "$made" ]; then
    rm -rf "$made.new"
    mkdir "$made.new"
    "$@" "$made.new"
    mv -T "$made.new" "$made"
    say "made $made"
  fi
  exec {lock}>&-
  echo "$made"
}

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# Where this machine gets Debian from.
mirror() {
  local suite
  suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk -v suite="$suite" '$1 == suite && $2 == "main" { print $3; exit }'
}

# unpack SUITE ARCHITECTURE PACKAGE... FOLDER: unpacks packages and what they need. No script of theirs runs, and apt
# keeps its lists and locks beside the folder, not where the machine's own are.
unpack() {
  local suite=$1 arch=$2 root=${*: -1} from apt=${*: -1}.apt package
  local packages=("${@:3:$#-3}")
  from=$(mirror)
  [ -n "$from" ] || skip "source of Debian's packages"
  rm -rf "$apt"
  mkdir -p "$apt"/{lists,archives}/partial
  : >"$apt/status"
  echo "deb [arch=$arch signed-by=$keyring] $from $suite main" >"$apt/sources"
  cat >"$apt/conf" <<END
APT::Architecture "$arch";
#clear APT::Architectures;
APT::Architectures "$arch";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
Acquire::Languages "none";
Acquire::Retries "3";
#clear APT::Update;
#clear DPkg::Post-Invoke;
Dir::State "$apt";
Dir::State::Lists "$apt/lists";
Dir::State::Status "$apt/status";
Dir::Cache "$apt";
Dir::Cache::Archives "$apt/archives";
Dir::Etc::SourceList "$apt/sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
END
  apt-get -qq -c "$apt/conf" update >&2 || skip "way to Debian's packages"
  apt-get -qq -c "$apt/conf" install --download-only "${packages[@]}" >&2 || skip "way to ${packages[*]} of Debian"
  mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
  ln -s usr/bin usr/sbin usr/lib usr/lib64 "$root"
  for package in "$apt"/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -C "$root" --keep-directory-symlink --no-same-owner -xf -
  done
  rm -rf "$apt"
}

# debian SUITE ARCHITECTURE PACKAGE... FOLDER: a system that can be entered. A Python in it finds packages in /site, and
# the project.
debian() {
  local root=${*: -1} python
  unpack "${@:1:2}" base-files bash coreutils ca-certificates libc-bin "${@:3}"
  mkdir -p "$root"/{dev,etc,kept,proc,project,root,site,sys,tmp}
  chmod 1777 "$root/tmp"
  echo 'root:x:0:0:root:/root:/bin/bash' >"$root/etc/passwd"
  echo 'root:x:0:' >"$root/etc/group"
  echo '127.0.0.1 localhost' >"$root/etc/hosts"
  for python in $(ls "$root/usr/bin" | grep -x 'python3\.[0-9]*'); do
    ln -sf "$python" "$root/usr/bin/python3"
    mkdir -p "$root/usr/local/lib/$python" "$root/usr/lib/python3/dist-packages"
    ln -s /site "$root/usr/local/lib/$python/dist-packages"
    echo /project >"$root/usr/lib/python3/dist-packages/project.pth"
  done
}

# wanted [NAME=VALUE]...: what pio and its tests need by pyproject.toml, where a marker's names have these values.
wanted() {
  python3 - "$@" <<'END'
import sys, tomllib
from pip._vendor.packaging.requirements import Requirement
there = dict(word.split("=") for word in sys.argv[1:])
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
for wanted in map(Requirement, project["dependencies"] + project["optional-dependencies"]["test"]):
    if wanted.marker is None or wanted.marker.evaluate(there):
        wanted.marker = None
        print(wanted)
END
}

# wheels PYTHON REQUIREMENTS PLATFORM... FOLDER: packages for another system.
wheels() {
  local version=$1 requirements=$2 platforms=("${@:3:$#-3}")
  python3 -m pip --disable-pip-version-check install -qq --no-warn-conflicts --root-user-action=ignore \
    --target "${*: -1}" \
    --no-compile --only-binary=:all: --implementation cp --python-version "$version" "${platforms[@]/#/--platform=}" \
    --requirement <(echo "$requirements") >&2
}

# enter ROOT SITE PREPARE [NAME=VALUE]... COMMAND...: runs a command in a system, with the current folder as /project,
# packages of Python in /site, and /kept, which stays from one call to the next, for what is compiled. All else that it
# writes goes when it ends, and so do processes that it leaves behind, and all when this program is killed. PREPARE runs
# in the namespaces before.
enter() {
  local kept=$cache/kept-$system
  mkdir -p "$kept"
  run=$(mktemp -d "$cache/run.XXXXXX")
  trap 'chmod -R u+rwx "$run/work" 2>/dev/null; rm -rf "$run"' EXIT
  mkdir "$run"/{upper,work,root}
  # shellcheck disable=SC2016
  setpriv --pdeathsig KILL unshare --map-root-user --mount --pid --fork --kill-child bash -euc '
    root=$1/root kept=$2
    mount -t overlay -o "lowerdir=$4,upperdir=$1/upper,workdir=$1/work,userxattr" overlay "$root"
    mount --bind "$3" "$root/project"
    mount --bind "$5" "$root/site"
    mount --bind "$kept" "$root/kept"
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    mount -t proc proc "$root/proc"
    eval "$6"
    shift 6
    exec chroot "$root" /usr/bin/env --ignore-environment PATH=/usr/bin:/bin HOME=/root LANG=C.UTF-8 CI="${CI:-}" "$@"
  ' bash "$run" "$kept" "$project" "$@"
}
