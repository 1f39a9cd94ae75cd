# Sourced by the other scripts: makes .venv with what they name, once; sets $python.
#   environment REQUIREMENT...      arguments of `pip install`

environment() {
  local venv="${TLJAX_VENV:-.venv}" stamp wanted
  python="$venv/bin/python"
  wanted="$*
$(cat requirements.txt pyproject.toml)"
  stamp="$venv/installed-$(echo "$*" | cksum | cut -d' ' -f1)"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
  # Without pip it is not there yet, or is what a system without python3-venv made half of.
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    if [ -n "$(ls -A "$venv" 2>/dev/null)" ] && [ ! -f "$venv/pyvenv.cfg" ]; then
      echo "error: $venv is there but is no virtual environment (it lacks pyvenv.cfg);" \
        "move it away, or set TLJAX_VENV to another folder" >&2
      exit 1
    fi
    echo "Making $venv ..."
    "${PYTHON:-python3}" -m venv --clear "$venv" || {
      echo "error: could not make $venv; on Debian or Ubuntu: apt install python3-venv" >&2
      exit 1
    }
  fi
  echo "Installing $* ..."
  "$python" -m pip install --quiet --disable-pip-version-check "$@"
  printf '%s\n' "$wanted" > "$stamp"
}
