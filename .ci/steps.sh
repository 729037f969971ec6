# What .ci/run and .ci/full share: finding Pythons, making environments, and the time of each step.

set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

began=0 doing="" times=""

step() { # step TITLE: what follows belongs to it
    close
    doing=$* began=$SECONDS
    printf '\n=== %s  [%d s]\n' "$doing" "$SECONDS"
}
close() {
    [ -z "$doing" ] || times+=$(printf '%6d s  %s' $((SECONDS - began)) "$doing")$'\n'
    doing=""
}
told() { # the time of each step
    close
    printf '\n%s%6d s  altogether\n' "$times" "$SECONDS"
}
fail() {
    told >&2
    printf '\nFAILED: %s  [%d s]\n' "$*" "$SECONDS" >&2
    exit 1
}

# --- Two things at once ----------------------------------------------------------------------

beside="" tools="" said=""

aside() { # aside FUNCTION: what takes one processor is done beside what follows
    close
    said=$(mktemp) || fail "no temporary file"
    # A group of its own, that ends with this program, whatever it has started.
    set -m
    (times="" && "$1" && told) >"$said" 2>&1 &
    set +m
    beside=$!
}
joined() { # what was done aside: its output, and whether it went well
    step "What was done aside"
    local status
    wait "$beside"
    status=$?
    beside=""
    cat "$said"
    [ "$status" = 0 ] || fail "what was done aside"
}
tidy() {
    [ -z "$beside" ] || kill -- "-$beside" 2>/dev/null
    [ -z "$said" ] || rm -f "$said"
    [ -z "$tools" ] || rm -rf "$tools"
}
trap tidy EXIT

# --- Pythons ---------------------------------------------------------------------------------

fits() { # fits PYTHON FROM BELOW: its path, if it runs and is 3.FROM or later, but below 3.BELOW
    [ -n "$1" ] && "$1" -c "import sys
if not (3, $2) <= sys.version_info[:2] < (3, $3): sys.exit(1)
print(sys.executable)" 2>/dev/null
}
of_pyenv() { # what pyenv has, newest first: its names on the path may refuse to run
    command -v pyenv >/dev/null || return 0
    local root version
    root=$(pyenv root) || return 0
    for version in $(pyenv versions --bare 2>/dev/null | sort -Vr); do
        printf '%s\n' "$root/versions/$version/bin/python"
    done
}
find_python() { # find_python FROM BELOW CANDIDATE...: the first that fits
    local from=$1 below=$2 candidate
    shift 2
    for candidate in "$@" $(of_pyenv); do
        fits "$candidate" "$from" "$below" && return 0
    done
    return 1
}
find_pythons() { # older: with BaSiCPy; today: with the libraries of today, empty where there is none
    step "Find Pythons"
    older=$(find_python 11 13 "${PYTHON:-}" python3.11 python3.12 python3 python) ||
        fail "there is no Python 3.11 or 3.12 here"
    "$older" --version
    if today=$(find_python 13 99 "${PYTHON313:-}" python3.13 python3.14 python3); then
        "$today" --version
        export PYTHON313="$today"
    else
        echo "There is no Python 3.13 or later here (PYTHON313 names one): nothing is tried with" \
            "the libraries of today."
    fi
}

# --- Environments ----------------------------------------------------------------------------

python3_is_older() { # for the commands of the README, which say python3 and make .venv
    local version='import sys; print(sys.version_info[:2])'
    if [ -e .venv ] && [ "$(.venv/bin/python -c "$version" 2>&1)" != "$("$older" -c "$version")" ]; then
        fail ".venv is of another Python; remove it, or set PYTHON"
    fi
    tools=$(mktemp -d) || fail "no temporary folder"
    printf '#!/bin/sh\nexec "%s" "$@"\n' "$older" >"$tools/python3"
    chmod +x "$tools/python3"
    PATH="$tools:$PATH"
}
find_browser() { # for the page of a report; root installs one where there is none
    step "Find a browser that opens the page of a report"
    if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; then
        echo "there is one"
    elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -y -qq chromium >/dev/null; } ||
            echo "chromium could not be installed: the test that needs it is skipped"
    else
        echo "there is none, and it cannot be installed here: the test that needs it is skipped"
    fi
}
install_today() {
    newer=build/today
    "$today" -m venv "$newer" && "$newer/bin/python" -m pip install -qq --upgrade '.[test]' ||
        fail "install"
    "$newer/bin/python" -m pip check || fail "installed packages disagree"
    "$newer/bin/python" -m pip freeze | grep -E '^(anndata|numpy|opencv|pandas|scipy|zarr)'
}
install_beside() { # into an environment of ngio and napari, of which nothing but pydantic may change
    newer=build/beside
    local python="$newer/bin/python" changed
    "$today" -m venv --clear "$newer" &&
        "$python" -m pip install -qq ngio napari napari-ome-zarr ome-zarr-models tensorstore &&
        "$python" -m pip freeze >"$newer/before.txt" && "$python" -m pip install -qq . &&
        "$python" -m pip freeze >"$newer/after.txt" || fail "install"
    changed=$(grep -vxFf "$newer/after.txt" "$newer/before.txt" | grep -Ev '^pydantic(_core)?==')
    [ -z "$changed" ] || fail "other versions than before of: $changed"
    "$python" -m pip check || fail "installed packages disagree"
    "$python" -m pip install -qq '.[test]' && "$python" -m pip check || fail "what tests need"
    "$python" -m pip freeze | grep -E '^(napari|ngio|numpy|pydantic|zarr)=='
}

# --- Checks ----------------------------------------------------------------------------------

today_tests() { # beside the environment that fits BaSiC, and begins jobs that are ended here
    PATH="$PWD/$newer/bin:$PATH" VIRTUAL_ENV="$PWD/$newer" \
        MESOSPIM_SHADING_BASIC_PYTHON="$PWD/.venv/bin/python" \
        MESOSPIM_SHADING_OTHER_PYTHON="$PWD/.venv/bin/python" \
        "$newer/bin/python" -m pytest -q "$@"
}
documentation() {
    step "The site of the documentation, warnings as errors"
    python -m pip install --quiet '.[docs]' || fail "what the documentation is built with"
    python -m pytest -q tests/integration/test_site.py || fail "documentation"
}
static_checks() {
    step "pip check, ruff, mypy, manifest"
    python -m pip check || fail "installed packages disagree"
    ruff check . || fail "ruff check"
    ruff format --check . || fail "ruff format: run 'ruff format .'"
    mypy || fail "mypy"
    fractal-manifest check --package fractal_mesospim_shading ||
        fail "the manifest is not that of the code"
}
