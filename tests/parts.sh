#!/bin/sh
# Installs Debian's parts that tests use where they are there; each test that needs one is skipped
# by its name without. Where they cannot be installed this says so, and is no error.
parts="postgresql chromium chromium-driver slurmctld slurmd slurm-client munge r-base-core faketime"
missing=""
for part in $parts; do
  dpkg-query -W -f '${Status}' "$part" 2>/dev/null | grep -q "ok installed" || missing="$missing $part"
done
if [ -z "$missing" ]; then
  echo "Parts are installed: $parts"
elif ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
  echo "Parts are not installed (apt-get and root are needed):$missing. Their tests are skipped."
else
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086
  if apt-get update -qq >/dev/null 2>&1 &&
    apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1; then
    echo "Installed:$missing"
  else
    echo "Parts could not be installed:$missing. Their tests are skipped."
  fi
fi
