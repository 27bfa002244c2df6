# What a process sees of its container, one "key value" a line. Runs under busybox sh in each engine; the environment
# variable OUTER holds the namespaces of the machine outside. Numbers that are different every time are left out here.

for name in CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Seccomp_filters SigBlk SigIgn Umask Groups; do
    echo "status $name $(grep "^$name:" /proc/self/status | cut -f2- | tr '\t' ' ')"
done
sed 's/  */ /g' /proc/self/limits | sed -n '2,$s/^Max \(.*\) \([0-9a-z]*\) \([0-9a-z]*\) [a-z]* *$/limit \1 \2 \3/p'
env | grep -v '^OUTER=' | sort | sed 's/^/env /'
echo "ids $(id -u) $(id -g) $(id -G)"
echo "cwd $(pwd)"
echo "terminal $(for fd in 0 1 2; do test -t $fd && printf y || printf n; done)"
# By the shell itself: a pipe to another process would be among them, or not, as it happens.
printf descriptors
for fd in /proc/1/fd/*; do printf ' %s' "${fd##*/}"; done
echo
echo "oom_score_adj $(cat /proc/self/oom_score_adj)"
echo "nice $(awk '{ print $19 }' /proc/self/stat)"
echo "pid $([ $$ = 1 ] && echo 1 || echo other)"
echo "uid_map $(tr -s ' ' </proc/self/uid_map)"
echo "timens_offsets $(tr -s ' \n' ' ' </proc/self/timens_offsets 2>/dev/null)"

for kind in cgroup ipc mnt net pid time user uts; do
    inside=$(readlink /proc/self/ns/$kind)
    case " $OUTER " in *" $inside "*) echo "namespace $kind shared" ;; *) echo "namespace $kind own" ;; esac
done

# Mount point, its own options, kind of file system, and those options of the superblock that are not paths or sizes.
awk '{
    for (i = 7; $i != "-"; i++);
    propagation = ""; for (j = 7; j < i; j++) propagation = propagation " " substr($j, 1, index($j ":", ":") - 1)
    n = split($(i + 3), super, ","); kept = ""
    for (j = 1; j <= n; j++) if (super[j] ~ /^(ro|rw|gid=|mode=|ptmxmode=|newinstance|hidepid|size=)/) kept = kept " " super[j]
    print "mount " $5 " " $(i + 1) " " $6 " |" kept " |" propagation
}' /proc/self/mountinfo

for file in /dev/*; do echo "dev $file $(stat -c '%F %a %u %g %t:%T' "$file" | sed 's/symbolic link.*/link/') $(readlink "$file" | sed 's|/dev/pts/.*|PTS|')"; done
for path in /proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi \
    /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware; do
    if [ -d "$path" ]; then echo "masked $path folder $(ls "$path" | wc -l)"
    elif [ -e "$path" ]; then echo "masked $path file $(head -c 1 "$path" 2>/dev/null | wc -c)"
    else echo "masked $path absent"; fi
done
for path in /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger /sys /sys/fs/cgroup/memory; do
    [ -e "$path" ] || continue
    if [ -w "$path" ]; then echo "writable $path yes"; else echo "writable $path no"; fi
done

for folder in /sys/fs/cgroup /sys/fs/cgroup/*; do [ -d "$folder" ] && echo "cgroup-folder $folder"; done
for file in memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes memory/memory.memsw.limit_in_bytes \
    memory/memory.swappiness memory/memory.oom_control cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us \
    cpuset/cpuset.cpus cpuset/cpuset.mems pids/pids.max devices/devices.list freezer/freezer.state \
    memory.max memory.low memory.swap.max cpu.weight cpu.max cpuset.cpus pids.max io.max io.weight; do
    if [ -f "/sys/fs/cgroup/$file" ]; then echo "cgroup $file $(tr '\n' ';' <"/sys/fs/cgroup/$file")"; fi
done
cut -d: -f2- /proc/self/cgroup | sed 's/^/cgroup-path /'

for link in /sys/class/net/*; do
    name=${link##*/}
    echo "link $name $(cat "$link/mtu") $(cat "$link/operstate") $(cat "$link/flags") $(cat "$link/address" | cut -c1-5)"
done
ip -o addr show 2>/dev/null | awk '{ print "address " $2 " " $3 " " $4 }'
ip route show 2>/dev/null | sed 's/^/route /'
ip -6 route show 2>/dev/null | sed 's/^/route6 /'
sed 's/^/resolv /' /etc/resolv.conf 2>/dev/null
sed 's/[[:space:]][[:space:]]*/ /g; s/^/hosts /' /etc/hosts 2>/dev/null
for file in /etc/hostname /etc/hosts /etc/resolv.conf; do echo "name-file $file $(stat -c '%a %u %g' $file 2>/dev/null)"; done
echo "hostname $(hostname)"
for key in net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range net/ipv4/ip_forward net/ipv6/conf/all/disable_ipv6 \
    net/ipv6/conf/eth0/accept_ra kernel/domainname kernel/shmmax kernel/msgmax fs/mqueue/queues_max net/core/somaxconn; do
    if [ -e "/proc/sys/$key" ]; then echo "sysctl $key $(tr '\t' ' ' <"/proc/sys/$key")"; fi
done
