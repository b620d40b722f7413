#!/bin/bash
# Installs, starts, upgrades, removes and purges the package under a systemd of its own, on a
# throw-away copy of this machine (an overlay, in namespaces): nothing of the machine is changed.
#
#   test.sh OLD.deb NEW.deb
#
# Needs root. Prints what it found; exit code 77: this machine cannot do it, the last line says why.
set -euo pipefail

unit=wsha-dataplane.service
addresses=(192.168.1.110 192.168.1.112)

# In the new namespaces: makes the copy, enters it, and becomes its systemd.
boot() {
    local work=$1 root=$1/root device
    mount --make-rprivate /
    mount -t tmpfs tmpfs "$work"
    mkdir "$work"/{upper,scratch,root}
    mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/scratch" "$root"
    cp "${@:2}" "$root/var/tmp/"
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for device in null zero full random urandom tty; do
        touch "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root/dev/shm" "$root/dev/pts"
    mount -t devpts -o ptmxmode=0666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    touch "$root/dev/console"
    # Nothing of the machine's own services, and nothing that is left of an installation.
    rm -rf "$root"/etc/systemd/system/*.wants "$root/etc/wsha" "$root/var/lib/wsha"
    rm -f "$root/usr/sbin/policy-rc.d"
    ip link set lo up
    ip link add lan type veth peer name far
    ip address add 192.168.1.14/24 dev lan
    ip link set lan up
    ip link set far up
    cd "$root"
    pivot_root . mnt
    umount -l /mnt
    exec env -i container=wsha /lib/systemd/systemd --system --unit=basic.target \
        --log-target=journal --show-status=0
}

cannot() {
    echo "$1"
    exit 77
}

# Runs a command in the copy.
inside() {
    timeout --kill-after 5 60 nsenter --target "$init" --all -- \
        env PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"
}

# Waits, 20 s at most, until a command in the copy succeeds.
until_inside() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        if inside "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    fail "not within 20 s: $*"
}

ok() { echo "ok: $*"; }

fail() {
    echo "FAILED: $*"
    inside journalctl --no-pager --lines 60 --output cat --unit "$unit" || true
    exit 1
}

property() { inside systemctl show --property "$1" --value "$unit"; }

expect() {
    local found
    found=$(property "$1")
    [[ $found == "$2" ]] || fail "$1 is '$found', not '$2'"
}

held() { inside ip -brief -4 address show dev lan | grep -qw "$1/32"; }

serving() {
    local address answer
    for address in "${addresses[@]}"; do
        until_inside bash -c "ip -brief -4 address show dev lan | grep -qw '$address/32'"
        # Not a WebSocket handshake: the proxy answers it itself.
        answer=$(inside bash -c "exec 3<>/dev/tcp/$address/8020
            printf 'GET / HTTP/1.1\r\nHost: test\r\n\r\n' >&3; read -r line <&3; echo \"\$line\"")
        [[ $answer == "HTTP/1.1 4"* ]] || fail "$address answers '$answer'"
    done
}

not_killed() {
    if inside journalctl --no-pager --unit "$unit" | grep -E 'Killing process|SIGKILL'; then
        fail "processes had to be killed: they did not stop in order"
    fi
}

cleanup() {
    local tries
    [[ -z ${outer:-} ]] || kill -KILL "$outer" 2>/dev/null || true
    for ((tries = 0; tries < 50; tries++)); do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
        [[ -d $group ]] || break
        sleep 0.1
    done
    rmdir "$work"
}

if [[ $1 == boot ]]; then boot "${@:2}"; fi

old=$1
new=$2
((EUID == 0)) || cannot "needs root"
for program in unshare nsenter ip dpkg systemctl findmnt pgrep; do
    command -v "$program" >/dev/null || cannot "$program is missing"
done
hierarchy=$(findmnt --noheadings --types cgroup2 --output TARGET | head -n 1)
[[ -n $hierarchy ]] || cannot "no cgroup2 is mounted"
group=$hierarchy/wsha-packaging-$$
work=$(mktemp -d)
mkdir "$group"
trap cleanup EXIT

bash -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' - "$group" \
    unshare --mount --pid --net --ipc --uts --cgroup --fork --kill-child \
    bash "$0" boot "$work" "$old" "$new" </dev/null >"$work.log" 2>&1 &
outer=$!
disown
init=
for ((tries = 0; tries < 100; tries++)); do
    init=$(pgrep --parent "$outer" || true)
    if [[ -n $init && $(cat "/proc/$init/comm" 2>/dev/null) == systemd ]]; then break; fi
    [[ -d /proc/$outer ]] || { cat "$work.log"; rm -f "$work.log"; cannot "systemd does not start in a copy of this machine"; }
    sleep 0.1
done
rm -f "$work.log"
until_inside systemctl is-active basic.target

inside dpkg --purge wsha-dataplane >/dev/null 2>&1 || true
inside dpkg --install "/var/tmp/${old##*/}" >/dev/null
inside getent passwd wsha-proxy >/dev/null || fail "no user wsha-proxy"
inside systemctl --quiet is-enabled "$unit" || fail "the service is not enabled"
expect ActiveState inactive
expect Result success
for document in README.md ARCHITECTURE.md LICENSE crds/yaml; do
    inside test -e "/usr/share/doc/wsha-dataplane/$document" || fail "$document is not installed"
done
ok "installed: user, service enabled, not started as there is nothing to serve"

found=$(inside systemd-analyze verify "$unit" 2>&1) || fail "verify: $found"
[[ -z $found ]] || fail "verify: $found"
ok "systemd-analyze verify has nothing to say"

inside cp /etc/wsha/pool.yaml.example /etc/wsha/pool.yaml
inside sh -c 'echo WSHA_NODE_NAME=server1 >>/etc/default/wsha-dataplane'
# The watchdog bites within the test if the service does not feed it.
inside mkdir -p "/run/systemd/system/$unit.d"
inside sh -c "printf '[Service]\nWatchdogSec=2s\n' >/run/systemd/system/$unit.d/test.conf"
inside systemctl daemon-reload
inside systemctl start "$unit" || fail "the service does not start"
expect ActiveState active
serving
inside pgrep --uid wsha-proxy --full 'wsha-dataplane proxy' >/dev/null || fail "no proxy of user wsha-proxy"
ok "started from the example: both addresses held, the proxy answers as user wsha-proxy"

if inside journalctl --no-pager --unit "$unit" | grep 'CAP_'; then fail "a right is missing"; fi
for process in run vrrp proxy; do
    pid=$(inside pgrep --full --oldest "^[^ ]*wsha-dataplane $process")
    rights=$(inside grep CapEff "/proc/$pid/status" | cut -f 2)
    [[ $process != proxy || $rights =~ ^0+$ ]] || fail "the proxy has capabilities: $rights"
    ok "$process runs with capabilities $rights"
done

expect OOMPolicy continue
[[ $(property MemoryMax) =~ ^[0-9]+$ ]] || fail "no limit of memory"
[[ $(property LimitNOFILE) == 1048576 ]] || fail "no limit of files"
expect OOMScoreAdjust -900
# This systemd may lack the right to lower it; what the proxy does to itself needs none.
for process in vrrp proxy; do
    pid=$(inside pgrep --full --oldest "^[^ ]*wsha-dataplane $process")
    found=$(inside cat "/proc/$pid/oom_score_adj")
    [[ $process == vrrp && $found -le 0 || $process == proxy && $found == 100 ]] ||
        fail "oom_score_adj of $process is $found"
done
ok "memory and files are limited, and the proxy is the one to end"

before=$(property MainPID)
inside systemctl reload "$unit" || fail "no reload"
until_inside sh -c "journalctl --no-pager --unit $unit | grep -q 'SIGHUP: looking at the files'"
expect MainPID "$before"
ok "a reload is a look at the files"

# The old version's program, for later.
inside cp /usr/bin/wsha-dataplane /usr/local/bin/wsha-dataplane-old
before=$(property MainPID)
inside dpkg --install "/var/tmp/${new##*/}" >/dev/null
expect ActiveState active
[[ $(property MainPID) != "$before" ]] || fail "the old version still runs"
inside grep -q '^WSHA_NODE_NAME=server1' /etc/default/wsha-dataplane || fail "settings were lost"
serving
not_killed
ok "upgraded: the new version serves, settings kept, nothing had to be killed"

# The old version runs by hand when the new one's service starts, whose unit says --take-over.
inside systemctl stop "$unit"
inside systemd-run --quiet --unit by-hand --property KillMode=process \
    /usr/local/bin/wsha-dataplane-old run --manifests /etc/wsha \
    --node-name server1 --state-dir /var/lib/wsha
serving
by_hand=$(inside systemctl show --property MainPID --value by-hand.service)
[[ $(inside readlink "/proc/$by_hand/exe") == */wsha-dataplane-old ]] || fail "the old version does not run"
inside systemctl start "$unit" || fail "the service does not start"
serving
until_inside sh -c "! kill -0 $by_hand"
[[ $(inside readlink "/proc/$(property MainPID)/exe") == /usr/bin/wsha-dataplane ]] || fail "the new version does not run"
not_killed
ok "upgraded with --take-over: the new version serves, the old one stopped in order"

before=$(property MainPID)
inside systemd-run --quiet --unit back /usr/local/bin/wsha-dataplane-old run --manifests /etc/wsha \
    --node-name server1 --state-dir /var/lib/wsha --take-over
until_inside sh -c "! kill -0 $before"
until_inside systemctl is-active "$unit"
serving
not_killed
until_inside sh -c "! systemctl is-active --quiet back.service"
ok "the old version takes over from the new one too"

restarts=$(property NRestarts)
inside mv /etc/wsha/pool.yaml /root/
inside systemctl kill --kill-whom main --signal KILL "$unit"
until_inside sh -c "[ \"\$(systemctl show --property NRestarts --value $unit)\" -gt $restarts ]"
until_inside systemctl is-active "$unit"
serving
inside mv /root/pool.yaml /etc/wsha/
ok "agent killed without its files: the others left in order, the service is back with what it had"

sleep 3
expect NRestarts "$((restarts + 1))"
ok "the watchdog is fed"

mark=$(inside date '+%F %T')
inside dpkg --remove wsha-dataplane >/dev/null
for address in "${addresses[@]}"; do
    if held "$address"; then fail "$address is still held"; fi
done
if inside journalctl --no-pager --since "$mark" --unit "$unit" | grep -E 'Killing process|SIGKILL'; then
    fail "removal had to kill"
fi
inside test ! -e /usr/bin/wsha-dataplane || fail "the program is still there"
inside test -e /etc/default/wsha-dataplane || fail "settings went with the program"
ok "removed: stopped in order, addresses gone, settings kept"

inside dpkg --purge wsha-dataplane >/dev/null
for path in /var/lib/wsha /run/wsha /etc/default/wsha-dataplane; do
    inside test ! -e "$path" || fail "$path is still there"
done
inside test -e /etc/wsha/pool.yaml || fail "the administrator's objects are gone"
ok "purged: state and settings gone, the administrator's objects kept"
