# Sourced by the other scripts: makes .venv with what they name, once; sets $python.
#   environment REQUIREMENT...      arguments of `pip install`

environment() {
  local venv="${TLJAX_VENV:-.venv}" stamp wanted
  python="$venv/bin/python"
  wanted="$*
$(cat requirements.txt pyproject.toml)"
  stamp="$venv/installed-$(echo "$*" | cksum | cut -d' ' -f1)"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
  if [ ! -x "$python" ]; then
    echo "Making $venv ..."
    "${PYTHON:-python3}" -m venv "$venv" || {
      echo "error: could not make $venv; on Debian or Ubuntu: apt install python3-venv" >&2
      exit 1
    }
  fi
  echo "Installing $* ..."
  "$python" -m pip install --quiet --disable-pip-version-check "$@"
  printf '%s\n' "$wanted" > "$stamp"
}
