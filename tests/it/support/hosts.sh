#!/bin/bash
# Hosts on one cable, each with a systemd of its own:
#
#   hosts.sh WORK NAME...     as root; needs the packages systemd-container, iproute2,
#                             openssh-server, openssh-client and sudo
#
# The hosts run this machine's programs: WORK/usr is laid over the /usr of each host, and
# the hosts cannot write there. Their roots are WORK/NAME. The first host has the address
# 192.0.2.1, the second 192.0.2.2, and so on. The hosts know each other by name, and root
# can log in from each to the others. They can reach nothing else.
#
# The script prints "NAME PID" for each host that is up; PID is the id of the host's
# systemd. Then it reads commands, one a line:
#
#   off NAME      cuts the host's power: its processes get no warning
#   on NAME       boots the host again
#   reboot NAME   waits until the host, which was told to reboot, has ended; boots it again
#
# When standard input ends, for example because the caller dies, everything is taken down.
# The cables lead to the network namespace SWITCH, where the cable of a host is called
# to-NAME.
set -euo pipefail

work=$1
hosts=("${@:2}")
name=spiped-test-$$
switch=$name-switch
declare -A nspawn

lay_cables() {
    local host
    ip netns add "$switch"
    ip -netns "$switch" link add switch up type bridge
    for host in "${hosts[@]}"; do
        ip netns add "$name-$host"
        ip -netns "$name-$host" link add host0 type veth peer name "to-$host" netns "$switch"
        ip -netns "$switch" link set "to-$host" master switch up
    done
}

make_root() { # make_root NUMBER NAME
    local root=$work/$2 link number=0 host
    mkdir -p "$root"/{usr,run,tmp,proc,sys,dev,root,var/{lib,log}}
    mkdir -p "$root"/etc/systemd/{system/{multi-user,network-online}.target.wants,network}
    chmod 1777 "$root/tmp"
    for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
    cp -a /etc/{passwd,group,ld.so.cache,pam.d,security,login.defs,sudoers} "$root/etc"
    echo 'root:*:19000::::::' > "$root/etc/shadow"
    cp -L /etc/os-release "$root/etc"
    echo "$2" > "$root/etc/hostname"
    echo '127.0.0.1 localhost' > "$root/etc/hosts"
    for host in "${hosts[@]}"; do
        echo "192.0.2.$((number += 1)) $host" >> "$root/etc/hosts"
    done
    printf '%s: files systemd\n' passwd group > "$root/etc/nsswitch.conf"
    echo 'hosts: files dns' >> "$root/etc/nsswitch.conf"
    # Without an id, this would be a first boot, which enables every unit of /usr.
    tr -d - < /proc/sys/kernel/random/uuid > "$root/etc/machine-id"
    for link in console-getty.service getty@.service; do
        ln -s /dev/null "$root/etc/systemd/system/$link"
    done
    ln -s /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
    printf '[Match]\nName=host0\n[Network]\nAddress=192.0.2.%d/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n' \
        "$1" > "$root/etc/systemd/network/10-host0.network"
    ln -s /usr/lib/systemd/system/systemd-networkd.service \
        "$root/etc/systemd/system/multi-user.target.wants"
    ln -s /usr/lib/systemd/system/systemd-networkd-wait-online.service \
        "$root/etc/systemd/system/network-online.target.wants"
    let_in "$root"
}

# One ssh key serves as the key of every host and of root on every host.
let_in() {
    [ -e "$work/ssh-key" ] || ssh-keygen -q -t ed25519 -N '' -f "$work/ssh-key"
    mkdir -pm 0700 "$1/root/.ssh" "$1/etc/ssh"
    cp "$work/ssh-key" "$1/root/.ssh/id_ed25519"
    cp "$work/ssh-key.pub" "$1/root/.ssh/authorized_keys"
    printf '%s\n' 'StrictHostKeyChecking accept-new' 'LogLevel ERROR' > "$1/root/.ssh/config"
    cp "$work/ssh-key" "$1/etc/ssh/ssh_host_ed25519_key"
    echo 'HostKey /etc/ssh/ssh_host_ed25519_key' > "$1/etc/ssh/sshd_config"
    ln -s /usr/lib/systemd/system/ssh.service "$1/etc/systemd/system/multi-user.target.wants"
}

# The cgroup folders of a host.
cgroups() {
    if [ -d /sys/fs/cgroup/unified ]; then
        echo /sys/fs/cgroup/{systemd,unified}/"$name-$1"
    else
        echo "/sys/fs/cgroup/$name-$1"
    fi
}

boot() {
    (
        for cgroup in $(cgroups "$1"); do
            mkdir -p "$cgroup"
            echo $BASHPID > "$cgroup/cgroup.procs"
        done
        # Without bpf, the device rules of the units would silently not apply.
        SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 exec nsenter --net="/run/netns/$name-$1" \
            systemd-nspawn --quiet --boot \
            --directory="$work/$1" --overlay-ro="/usr:$work/usr:/usr" --machine="$name-$1" \
            --private-users=no --capability=all --system-call-filter='bpf @keyring' \
            --register=no --keep-unit --link-journal=no --resolv-conf=off --timezone=off \
            --console=pipe
    ) < /dev/null >> "$work/$1.console" 2>&1 &
    nspawn[$1]=$!
}

# The process id of a host's systemd, which is the child of nspawn.
leader() {
    cut -d ' ' -f 1 "/proc/${nspawn[$1]}/task/${nspawn[$1]}/children"
}

wait_until_up() {
    local tries pid
    for tries in {1..600}; do
        if pid=$(leader "$1" 2> /dev/null) && [ -n "$pid" ]; then
            case $(nsenter --target "$pid" --all -- systemctl is-system-running 2> /dev/null) in
                running | degraded)
                    echo "$1 $pid"
                    return
                    ;;
            esac
        fi
        sleep 0.05
    done
    echo "host $1 does not come up:" >&2
    cat "$work/$1.console" >&2
    return 1
}

# systemd is killed first, because nspawn killed alone would leave it behind.
kill_host() {
    kill -KILL "$(leader "$1")" 2> /dev/null || kill -TERM "${nspawn[$1]}" 2> /dev/null || true
    wait "${nspawn[$1]}" || true
}

take_down() {
    trap '' INT TERM HUP
    set +e
    local host cgroup
    for host in "${!nspawn[@]}"; do
        kill_host "$host"
        for cgroup in $(cgroups "$host"); do
            find "$cgroup" -depth -type d -exec rmdir {} +
        done
    done 2> /dev/null
    for host in "${hosts[@]}"; do ip netns delete "$name-$host"; done 2> /dev/null
    ip netns delete "$switch" 2> /dev/null
    rm -rf --one-file-system "$work"
}
trap take_down EXIT
trap 'exit 1' INT TERM HUP

lay_cables
number=0
for host in "${hosts[@]}"; do make_root $((number += 1)) "$host"; boot "$host"; done
for host in "${hosts[@]}"; do wait_until_up "$host"; done
while read -r command host; do
    case $command in
        off) kill_host "$host" && continue ;;
        reboot) wait "${nspawn[$host]}" || true ;;
    esac
    boot "$host"
    wait_until_up "$host"
done
