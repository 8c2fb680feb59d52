#!/bin/sh
# Makes .venv in this checkout hold exactly what requirements.lock says, plus blm itself (editable).
#
# Needs a Python of the version in .python-version, with pip. Installs nothing outside the checkout (download caches
# aside). Re-running is cheap: the stamp, written last, says which lock, metadata and folder the environment was made for.
set -eu
cd "$(dirname "$0")/.."

checkout=$(pwd -P)
venv=$checkout/.venv
python=$venv/bin/python
stamp=$venv/.setup-complete
syncing=$venv/.setup-running
wanted=$(cut -d . -f 1,2 .python-version)
key="$checkout $(cat .python-version requirements.lock pyproject.toml tools/setup.sh | cksum)"

say() { printf '%s\n' "setup: $*" >&2; }

# Every path is tried by running it: a pyenv shim exists for versions it then refuses to start.
is_wanted_python() {
    "$1" -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$wanted')" >/dev/null 2>&1
}

# Scripts in an environment name its folder, so one that was copied or moved is of no use.
is_made_here() {
    case "$(sed -n 's/^command = //p' "$venv/pyvenv.cfg" 2>/dev/null)" in
    *" $venv") return 0 ;;
    *) return 1 ;;
    esac
}

candidate_pythons() {
    [ -z "${PYTHON:-}" ] || printf '%s\n' "$PYTHON"
    printf '%s\n' "python$wanted" python3 python
    ls -d "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$wanted"*/bin/python 2>/dev/null || true
    ls -d "${UV_PYTHON_INSTALL_DIR:-${HOME:-}/.local/share/uv/python}"/*"-$wanted"*/bin/python3 2>/dev/null || true
    ls -d "${HOME:-}"/.asdf/installs/python/"$wanted"*/bin/python "${HOME:-}"/.local/share/mise/installs/python/"$wanted"*/bin/python \
        /opt/homebrew/opt/python@"$wanted"/bin/python"$wanted" /usr/local/opt/python@"$wanted"/bin/python"$wanted" \
        /Library/Frameworks/Python.framework/Versions/"$wanted"/bin/python3 /usr/local/bin/python"$wanted" \
        /opt/python*/bin/python"$wanted" 2>/dev/null || true
    if command -v pyenv >/dev/null 2>&1; then
        printf '%s/bin/python\n' "$(pyenv prefix "$wanted" 2>/dev/null || true)"
    fi
    if command -v uv >/dev/null 2>&1; then
        uv python find --no-python-downloads --system "$wanted" 2>/dev/null || true
    fi
    if command -v py >/dev/null 2>&1; then
        py "-$wanted" -c 'import sys; print(sys.executable)' 2>/dev/null || true
    fi
}

find_python() {
    candidate_pythons | while IFS= read -r candidate; do
        if is_wanted_python "$candidate"; then
            # The name may be a shim, or belong to an activated .venv that is about to be remade: pass on what is behind it.
            "$candidate" -c 'import sys; print(getattr(sys, "_base_executable", "") or sys.executable)'
            break
        fi
    done
}

make_venv() {
    base=$(find_python)
    if [ -z "$base" ]; then
        say "no Python $wanted found."
        say "Install it (for example: apt install python$wanted python$wanted-venv, brew install python@$wanted,"
        say "pyenv install $wanted or uv python install $wanted), or name one: make setup PYTHON=/path/to/python$wanted"
        exit 1
    fi
    say "making .venv with $base"
    rm -rf "$venv"
    # Debian splits ensurepip off; pip beside the base interpreter can then fill the environment.
    "$base" -m venv "$venv" >/dev/null 2>&1 || "$base" -m venv --clear --without-pip "$venv"
}

install_uv() {
    wanted_uv=$venv/uv-from-lock.txt
    awk '/^uv==/ {inside = 1; print; next} /^[^ ]/ {inside = 0} inside' requirements.lock >"$wanted_uv"
    if "$python" -m pip --version >/dev/null 2>&1; then
        set -- "$python" -m pip
    else
        set -- "$(find_python)" -m pip --python "$python"
    fi
    "$@" install --quiet --disable-pip-version-check --require-hashes --no-deps --force-reinstall -r "$wanted_uv"
}

[ "$(cat "$stamp" 2>/dev/null || true)" != "$key" ] || exit 0

# Another Python, another folder, or cut off while packages were being written: start again.
if [ -e "$syncing" ] || ! is_made_here || ! is_wanted_python "$python"; then
    make_venv
fi
rm -f "$stamp"
"$venv/bin/uv" --version >/dev/null 2>&1 || install_uv

say "bringing .venv in line with requirements.lock"
: >"$syncing"
# `sync` also removes what the lock does not name, blm included, so blm comes after it. Its build backend is locked.
status=0
"$venv/bin/uv" pip sync --quiet --python "$python" --require-hashes requirements.lock || status=$?
# uv reports its own failures before it changes anything; only a kill can leave half a package.
[ "$status" -gt 128 ] || rm -f "$syncing"
if [ "$status" -ne 0 ]; then
    say "installing the locked packages failed; mend the cause above and run 'make setup' again."
    exit 1
fi
"$venv/bin/uv" pip install --quiet --python "$python" --no-deps --no-build-isolation --editable .
printf '%s\n' "$key" >"$stamp"
say "done: .venv/bin/blm"
