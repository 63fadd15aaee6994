#!/bin/sh
# After parkwarden's files are there. Debian calls it with `configure` and the version that was there before, RPM with how many
# versions are installed now. The agent is not started by being installed: it looks into every Go process of the host, which
# its administrator decides. One that runs goes on in the new version.
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart parkwarden.service
fi
