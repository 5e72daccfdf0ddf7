#!/usr/bin/env bash
# Builds and runs every container that `medical-vqa deploy` renders, without a Docker engine and without a registry:
# buildah and podman, on a stand-in for python:*-slim-bookworm that debootstrap makes (Debian's own python 3.11).
#
#   tools/try_images.sh [--wheel FILE] [--model BUNDLE] [--only backend|space|compose] [--keep DIR] [--reuse]
#                       [BUILDAH OPTION ...]
#
# It needs root, Debian's buildah, podman, runc, debootstrap, netavark and aardvark-dns, and podman-compose from pip.
# Where pip inside a container needs this machine's configuration, mount it: --volume /etc/pip.conf:/etc/pip.conf:ro
set -euo pipefail
cd "$(dirname "$0")/.."

CLI=${MEDICAL_VQA:-.venv/bin/medical-vqa}
COMPOSE=${PODMAN_COMPOSE:-$PWD/.venv/bin/podman-compose}
PICTURE=$PWD/src/medical_vqa/assets/slake-mini/imgs/xmlab112/source.jpg
QUESTION="What modality is used to take this image?"
MIRROR=${MIRROR:-http://deb.debian.org/debian}
work="" only="" reuse="" deploy_options=() build_options=()
while [ $# -gt 0 ]; do
  case $1 in
    --wheel | --model) deploy_options+=("$1" "$2"); shift 2 ;;
    --only) only=$2; shift 2 ;;
    --reuse) reuse=yes; shift ;; # images of an earlier run are not built again
    --keep) work=$2; shift 2 ;;
    *) build_options+=("$1"); shift ;;
  esac
done
[ -n "$work" ] || { work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; }
mkdir -p "$work"

# crun cannot start these under an outer container, nor may limits be raised there; names need netavark's DNS.
cat >"$work/containers.conf" <<'CONF'
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
[network]
network_backend = "netavark"
CONF
export CONTAINERS_CONF=$work/containers.conf

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
fail() { say "FAILED: $*"; exit 1; }
run() { podman run --network host "$@" >/dev/null 2>>"$work/podman.log"; } # it complains about absent systemd timers

# An image under the name that the Dockerfiles ask for, from a bare Debian.
stand_in() { # NAME [PACKAGE COMMAND]
  podman image exists "$1" && return
  local root=$work/base
  [ -d "$root/usr" ] || debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root" "$MIRROR" >"$work/debootstrap.log"
  local made
  made=$(buildah from scratch)
  buildah add --quiet "$made" "$root" / >/dev/null
  buildah run --isolation chroot "$made" -- ln -sf /usr/bin/python3 /usr/local/bin/python
  if [ -n "${2:-}" ]; then
    buildah run --isolation chroot "$made" -- sh -c "apt-get update -qq && apt-get install -y -qq --no-install-recommends $2 >/dev/null"
  fi
  [ -z "${3:-}" ] || buildah config --cmd "$3" "$made"
  buildah commit --quiet --rm "$made" "$1" >/dev/null
  say "stand-in for $1 made of bookworm and its ${2:-python3}"
}

render() { # FOLDER TARGET [OPTION ...]
  local folder=$work/$1
  "$CLI" deploy "$2" --out "$folder" --force "${deploy_options[@]}" "${@:3}" >/dev/null
  say "rendered $1: $(find "$folder" -type f | wc -l) files"
}

build() { # TAG FOLDER [DOCKERFILE]
  if [ -n "$reuse" ] && podman image exists "$1"; then return; fi
  buildah bud --quiet --format docker --isolation chroot --pull=never "${build_options[@]}" \
    --tag "$1" --file "$work/$2/${3:-Dockerfile}" "$work/$2" >"$work/build-$1.log" 2>&1 || {
    tail -n 30 "$work/build-$1.log"
    fail "building $1"
  }
  say "built $1: $(podman image inspect --format '{{.Size}}' "$1" | awk '{printf "%.0f MB", $1 / 1e6}'), of which base $(podman image inspect --format '{{.Size}}' "$base" | awk '{printf "%.0f MB", $1 / 1e6}')"
}

wait_for() { # URL SECONDS
  for _ in $(seq $(($2 * 10))); do
    curl --silent --fail --output /dev/null --max-time 2 "$1" && return
    sleep 0.1
  done
  return 1
}

ask() { # BASE URL: upload, then ask; leaves the answer in `answer`
  answer=$(asked "$1") || fail "no answer from $1"
}

asked() { # BASE URL
  local id
  id=$(curl --silent --fail --form "image_file=@$PICTURE" "$1/upload_image" | python3 -c 'import json, sys; print(json.load(sys.stdin)["image_id"])') || return
  curl --silent --fail --form "image_id=$id" --form "question=$QUESTION" "$1/ask_question" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["answer"])'
}

stop_and_check() { # CONTAINER: SIGTERM, and the exit status must be 0
  podman kill --signal TERM "$1" >/dev/null
  local status
  status=$(timeout 15 podman wait "$1") || fail "$1 did not stop within 15 s of SIGTERM"
  podman rm "$1" >/dev/null 2>>"$work/podman.log"
  [ "$status" = 0 ] || fail "$1 ended with $status after SIGTERM"
  say "$1: SIGTERM, exit status 0"
}

try_backend() { # IMAGE
  run --detach --name backend --env PORT=18000 --read-only --tmpfs /tmp --tmpfs /images:mode=1777 --cap-drop all "$1"
  wait_for http://127.0.0.1:18000/readyz 60 || { podman logs backend; fail "$1 is not ready after 60 s"; }
  [ "$(podman exec backend id -u)" = 1000 ] || fail "$1 does not run as uid 1000"
  ask http://127.0.0.1:18000
  say "$1 is up as uid 1000, read-only; $QUESTION -> $answer"
  say "resident: $(awk '/VmRSS/ {printf "%.0f MB", $2 / 1e3}' "/proc/$(podman inspect --format '{{.State.Pid}}' backend)/status")"
  podman exec backend python -c "import importlib.util as u; assert u.find_spec('torch') is None" || fail "$1 holds torch"
  podman healthcheck run backend || fail "$1 fails its own HEALTHCHECK"
  say "$1: no torch in it, HEALTHCHECK passes"
  stop_and_check backend
}

try_space() { # IMAGE: as the platform does it: uid 1000, nothing else set, app_port from the outside
  run --detach --name space --user 1000 "$1"
  wait_for http://127.0.0.1:7860/_stcore/health 90 || { podman logs space; fail "the Space is not up after 90 s"; }
  curl --silent --fail --max-time 5 http://127.0.0.1:7860/ | grep -qi '<title>' || fail "the Space shows no page"
  local url
  for _ in $(seq 300); do
    url=$(podman logs space 2>&1 | sed -n 's/.*"url": "\(http:[^"]*\)".*"event": "serving".*/\1/p')
    [ -n "$url" ] && break
    sleep 0.1
  done
  wait_for "$url/readyz" 30 || fail "the backend inside the Space is not ready"
  ask "$url"
  say "$1 is up on 7860 as uid $(podman exec space id -u); its own backend: $QUESTION -> $answer"
  stop_and_check space
}

try_compose() {
  (
    cd "$work/compose"
    export HTTP_PORT=18080 HTTPS_PORT=18443
    "$COMPOSE" up --detach >"$work/compose.log" 2>&1 || {
      tail -n 30 "$work/compose.log"
      fail "compose up"
    }
    wait_for http://127.0.0.1:18080/api/readyz 90 || { "$COMPOSE" logs; fail "the API is not there after 90 s"; }
    wait_for http://127.0.0.1:18080/_stcore/health 60 || fail "the page is not there"
    ask http://127.0.0.1:18080/api
    say "compose is up; through the proxy: $QUESTION -> $answer"
    "$COMPOSE" down --volumes >>"$work/compose.log" 2>&1 || fail "compose down"
    [ -z "$(podman ps --all --quiet --filter label=io.podman.compose.project=medical-vqa)" ] || fail "compose down left containers"
    say "compose is down, nothing left"
  )
}

render cloud-run cloud-run
render compose compose
render space space
base=docker.io/library/$(sed -n 's/^FROM \(python[^ ]*\).*/\1/p' "$work/compose/Dockerfile" | head -n 1)
version=$(sed -n 's/.*image: medical-vqa-backend:\(.*\)/\1/p' "$work/compose/compose.yaml")
stand_in "$base"
stand_in "docker.io/library/$(sed -n 's/.*image: \(caddy.*\)/\1/p' "$work/compose/compose.yaml")" caddy \
  "caddy run --config /etc/caddy/Caddyfile --adapter caddyfile"

wanted() { [ -z "$only" ] || [ "$only" = "$1" ]; }

build "medical-vqa-backend:$version" cloud-run
if wanted backend; then
  try_backend "medical-vqa-backend:$version"
fi
if wanted space; then
  build medical-vqa-space:latest space
  try_space medical-vqa-space:latest
fi
if wanted compose; then
  build "medical-vqa-app:$version" compose Dockerfile.app
  try_compose
fi
say "${only:-all of it} works"
