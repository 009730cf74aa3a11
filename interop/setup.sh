# Sourced by run and bench: installs the SDKs and builds what drives them, below target/interop. Quick when that is done.
# Leaves the shell in this folder, with HIGHWATER_BIN and INTEROP_TARGET set.

[[ -z ${HIGHWATER_BIN:-} ]] || HIGHWATER_BIN="$(realpath "$HIGHWATER_BIN")"
cd "$(dirname "${BASH_SOURCE[0]}")"
target="$(cd .. && pwd)/target/interop"
mkdir -p "$target"

need() { # need PROGRAM WHAT-TO-DO
    command -v "$1" >/dev/null || {
        printf 'interop: %s is not installed: %s\n' "$1" "$2" >&2
        exit 1
    }
}
need node "install Node.js 20 or newer"
need npm "install npm (it comes with Node.js, or as the package npm of the distribution)"
need python3 "install Python 3.9 or newer with its module venv"
need cargo "install Rust"

# The JavaScript is played beside its packages, so that the sources stay clean.
mkdir -p "$target/node"
cp clients/node/*.mjs examples/*.mjs clients/node/package.json "$target/node/"
if ! cmp -s clients/node/package-lock.json "$target/node/installed"; then
    cp clients/node/package-lock.json "$target/node/"
    (cd "$target/node" && npm ci --no-audit --no-fund --loglevel=error)
    cp clients/node/package-lock.json "$target/node/installed"
fi

if ! cmp -s clients/python/requirements.txt "$target/venv/installed"; then
    python3 -m venv --clear "$target/venv"
    "$target/venv/bin/pip" install --quiet --disable-pip-version-check -r clients/python/requirements.txt
    cp clients/python/requirements.txt "$target/venv/installed"
fi

CARGO_TARGET_DIR="$target/cargo" cargo build --release --locked --quiet
if [[ -z ${HIGHWATER_BIN:-} ]]; then
    (cd .. && cargo build --release --locked --quiet -p highwater-cli)
    HIGHWATER_BIN="$(cd .. && pwd)/target/release/highwater"
fi
export HIGHWATER_BIN INTEROP_TARGET="$target" PYTHONDONTWRITEBYTECODE=1
