# Shared by the scripts of this folder: makes the virtual environment .venv with everything that they need.
# Source it, then call: ensure_venv EXTRAS   (for example: ensure_venv all,dev)

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
torch_version="$(sed -n 's/^torch==//p' "$repository/constraints.txt")"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '\n== %s\n' "$*"; }

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }

apt_install() {
    say "installing system packages: $*"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Pictures of MuJoCo need EGL. Nothing else of the system is needed beyond Python.
ensure_system() {
    [ -z "${system_is_ready:-}" ] || return 0
    find_python >/dev/null || { can_apt && apt_install python3 python3-venv; } || true
    find_python >/dev/null || fail "Python 3.11, 3.12 or 3.13 is needed and was not found. Install it (Debian/Ubuntu: apt-get install python3 python3-venv) and run this again, or set PYTHON=/path/to/python."
    if ! "$(find_python)" -c 'import ensurepip, venv' 2>/dev/null; then
        can_apt && apt_install "python$("$(find_python)" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" \
            || fail "Python's venv module is missing. Install it (Debian/Ubuntu: apt-get install python3-venv) and run this again."
    fi
    if [ "$(uname -s)" = Linux ] && ! ldconfig -p 2>/dev/null | grep -q 'libEGL\.so\.1'; then
        if can_apt; then
            apt_install libegl1 libgl1 libgl1-mesa-dri || printf 'warning: EGL could not be installed; MuJoCo pictures will be missing\n' >&2
        else
            printf 'warning: libEGL is missing, so MuJoCo pictures will be; install it with: sudo apt-get install libegl1 libgl1 libgl1-mesa-dri\n' >&2
        fi
    fi
    system_is_ready=1
}

# The pages of envs/gui need a browser (80 MB to fetch, 290 MB installed); without one their tests are skipped and counted.
ensure_browser() {
    command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 && return
    if can_apt; then
        apt_install chromium fonts-liberation || printf 'warning: chromium could not be installed; the tests of web pages are skipped\n' >&2
    else
        printf 'warning: no browser; the tests of web pages are skipped. Install one with: sudo apt-get install chromium fonts-liberation\n' >&2
    fi
}

# The pretend accelerator of tests/agents/test_device_waits.py is built from C++; without a compiler that test is skipped and says so.
ensure_compiler() {
    local include
    include="$("$(find_python)" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')"
    command -v c++ >/dev/null 2>&1 && [ -f "$include/Python.h" ] && return
    if can_apt; then
        apt_install g++ python3-dev || printf 'warning: g++ and python3-dev could not be installed; waits on a device are not counted\n' >&2
    else
        printf 'warning: no C++ compiler or no Python.h; waits on a device are not counted. Install them with: sudo apt-get install g++ python3-dev\n' >&2
    fi
}

# The CPU build of torch unless an NVIDIA GPU is there: several GB less.
install_torch() {
    local pip="$1"
    if [ "$(uname -s)" != Linux ] || command -v nvidia-smi >/dev/null 2>&1; then
        "$pip" install -q "torch==$torch_version"
        return
    fi
    "$pip" install -q "torch==$torch_version+cpu" 2>/dev/null \
        || "$pip" install -q "torch==$torch_version" --index-url https://download.pytorch.org/whl/cpu 2>/dev/null \
        || "$pip" install -q "torch==$torch_version"
}

ensure_venv() {
    local extras="$1" stamp wanted
    ensure_system
    wanted="$(cat "$repository/pyproject.toml" "$repository/setup.py" "$repository/constraints.txt" | cksum) $extras"
    stamp="$repository/.venv/.installed"
    # a wider set of extras serves a narrower request
    if [ -f "$stamp" ] && { [ "$(cat "$stamp")" = "$wanted" ] || [ "$(cat "$stamp")" = "${wanted% *} all,dev" ]; }; then
        return
    fi
    say "installing into $repository/.venv (a few minutes the first time)"
    [ -x "$repository/.venv/bin/python" ] || "$(find_python)" -m venv "$repository/.venv"
    "$repository/.venv/bin/python" -m pip install -q --upgrade pip "setuptools>=77" wheel
    "$repository/.venv/bin/python" -c 'import torch' 2>/dev/null || install_torch "$repository/.venv/bin/pip"
    "$repository/.venv/bin/pip" install -q --constraint "$repository/constraints.txt" -e "$repository[$extras]"
    printf '%s' "$wanted" > "$stamp"
}

# A second environment for the extras minihack and textworld, which are built from source and want an older setuptools.
# Returns 1 where there is no C compiler.
ensure_built_venv() {
    local venv="$repository/.venv-built" stamp wanted
    if ! command -v gcc >/dev/null 2>&1; then
        can_apt && apt_install build-essential python3-dev || {
            printf 'warning: no C compiler (Debian/Ubuntu: apt-get install build-essential): MiniHack and TextWorld are not tested\n' >&2
            return 1
        }
    fi
    wanted="$(cat "$repository/pyproject.toml" "$repository/constraints.txt" | cksum) built"
    stamp="$venv/.installed"
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
    say "building MiniHack and TextWorld into $venv (minutes the first time)"
    [ -x "$venv/bin/python" ] || "$(find_python)" -m venv "$venv"
    "$venv/bin/python" -m pip install -q --upgrade pip "setuptools<81" wheel
    "$venv/bin/python" -c 'import torch' 2>/dev/null || install_torch "$venv/bin/pip"
    grep -vE '^setuptools==' "$repository/constraints.txt" > "$venv/constraints.txt"
    # errexit does not hold in a condition, from where this is called
    "$venv/bin/pip" install -q --constraint "$venv/constraints.txt" -e "$repository[language,nethack,minihack,textworld]" pytest || {
        printf 'warning: MiniHack and TextWorld could not be built (see above): they are not tested\n' >&2
        return 1
    }
    printf '%s' "$wanted" > "$stamp"
}
