"""System calls that a confined process may make: one table with a reason for each group.

What is not in `ALLOWED`, or in `restricted_calls` with the arguments there, fails: with EACCES if
it is in `REFUSED`, else with ENOSYS, as on a kernel that lacks it, for which programs have a
fallback. So a call of a later kernel is refused until it has a reason here. Together the tables
name every call up to Linux 6.10. Numbers: asm/unistd_64.h of x86-64, and asm-generic/unistd.h,
which arm64 has.
"""

from __future__ import annotations

from collections.abc import Mapping

MACHINES = ("x86_64", "aarch64")  # in the order of the numbers


_Table = dict[str, dict[str, tuple[int, int]]]  # by reason and name: the numbers; -1: none there


def _table(groups: Mapping[str, str]) -> _Table:
    """Return the groups, each of which has items NAME X86_64/AARCH64; `-`: no such call there."""
    result: _Table = {}
    for reason, items in groups.items():
        result[reason] = {}
        for item in items.split(","):
            name, _, numbers = item.strip().partition(" ")
            first, _, second = numbers.replace("-", "-1").partition("/")
            result[reason][name] = (int(first), int(second))
    return result


ALLOWED = _table(
    {
        "open files: what may be opened is Landlock's matter": """
        read 0/63, write 1/64, readv 19/65, writev 20/66, pread64 17/67, pwrite64 18/68,
        preadv 295/69, pwritev 296/70, preadv2 327/286, pwritev2 328/287, lseek 8/62,
        close 3/57, close_range 436/436, dup 32/23, dup2 33/-, dup3 292/24, fstat 5/80,
        fstatfs 138/44, flock 73/32, fsync 74/82, fdatasync 75/83, sync_file_range 277/84,
        ftruncate 77/46, fallocate 285/47, fadvise64 221/223, readahead 187/213, sendfile 40/71,
        splice 275/76, tee 276/77, copy_file_range 326/285, getdents 78/-, getdents64 217/61,
        fchdir 81/50, fgetxattr 193/10, flistxattr 196/13
    """,
        (
            "files by name, which Landlock limits to those of the rules; it does not limit their "
            "attributes and links, which show no content"
        ): """
        stat 4/-, lstat 6/-,
        newfstatat 262/79, statx 332/291, statfs 137/43, access 21/-, faccessat 269/48,
        faccessat2 439/439, readlink 89/-, readlinkat 267/78, getcwd 79/17, chdir 80/49,
        mkdir 83/-, mkdirat 258/34, rmdir 84/-, rename 82/-, renameat 264/38, renameat2 316/276,
        link 86/-, linkat 265/37, unlink 87/-, unlinkat 263/35, symlink 88/-, symlinkat 266/36,
        truncate 76/45, umask 95/166, getxattr 191/8, lgetxattr 192/9, listxattr 194/11,
        llistxattr 195/12
    """,
        "pipes, events and timers of this process": """
        pipe 22/-, pipe2 293/59, eventfd 284/-, eventfd2 290/19, poll 7/-, ppoll 271/73,
        select 23/-, pselect6 270/72, epoll_create 213/-, epoll_create1 291/20,
        epoll_ctl 233/21, epoll_wait 232/-, epoll_pwait 281/22, epoll_pwait2 441/441,
        signalfd 282/-, signalfd4 289/74, timerfd_create 283/85, timerfd_settime 286/86,
        timerfd_gettime 287/87, timer_create 222/107, timer_settime 223/110,
        timer_gettime 224/108, timer_getoverrun 225/109, timer_delete 226/111, getitimer 36/102,
        setitimer 38/103, alarm 37/-, pause 34/-, nanosleep 35/101, clock_nanosleep 230/115
    """,
        "memory of this process": """
        mmap 9/222, munmap 11/215, mremap 25/216, mprotect 10/226, brk 12/214, madvise 28/233,
        mincore 27/232, msync 26/227, mlock 149/228, mlock2 325/284, mlockall 151/230,
        munlock 150/229, munlockall 152/231, mseal 462/462, memfd_create 319/279,
        pkey_alloc 330/289, pkey_free 331/290, pkey_mprotect 329/288, map_shadow_stack 453/453,
        mbind 237/235, get_mempolicy 239/236, set_mempolicy 238/237,
        set_mempolicy_home_node 450/450, membarrier 324/283
    """,
        "threads and child processes, all of which have this filter": """
        fork 57/-, vfork 58/-, execve 59/221, execveat 322/281, exit 60/93, exit_group 231/94,
        wait4 61/260, waitid 247/95, set_tid_address 218/96, set_robust_list 273/99,
        rseq 334/293, futex 202/98, futex_waitv 449/449, futex_wake 454/454, futex_wait 455/455,
        futex_requeue 456/456, arch_prctl 158/-, sched_yield 24/124, restart_syscall 219/128
    """,
        (
            "signals: Landlock keeps those to processes outside from Linux 6.12 on, and a "
            "namespace of processes before"
        ): """
        tkill 200/130, tgkill 234/131, rt_sigqueueinfo 129/138, rt_tgsigqueueinfo 297/240,
        rt_sigaction 13/134, rt_sigprocmask 14/135, rt_sigpending 127/136,
        rt_sigsuspend 130/133, rt_sigtimedwait 128/137, rt_sigreturn 15/139, sigaltstack 131/132
    """,
        "open sockets: none can be made but connected pairs": """
        sendto 44/206, sendmsg 46/211, sendmmsg 307/269, recvfrom 45/207, recvmsg 47/212,
        recvmmsg 299/243, shutdown 48/210, getsockname 51/204, getpeername 52/205,
        getsockopt 55/209
    """,
        "names, numbers and figures that are read": """
        getpid 39/172, getppid 110/173, gettid 186/178, getpgid 121/155, getpgrp 111/-,
        getsid 124/156, getuid 102/174, geteuid 107/175, getgid 104/176, getegid 108/177,
        getresuid 118/148, getresgid 120/150, getgroups 115/158, capget 125/90, uname 63/160,
        sysinfo 99/179, getcpu 309/168, getrusage 98/165, times 100/153, time 201/-,
        gettimeofday 96/169, clock_gettime 228/113, clock_getres 229/114, getrandom 318/278,
        getrlimit 97/163, getpriority 140/141, ioprio_get 252/31, sched_getaffinity 204/123,
        sched_getattr 315/275, sched_getparam 143/121, sched_getscheduler 145/120,
        sched_get_priority_max 146/125, sched_get_priority_min 147/126,
        sched_rr_get_interval 148/127
    """,
        "limits and groups of this process, which it can make narrower alone": """
        setrlimit 160/164, setpgid 109/154, setsid 112/157, capset 126/91, seccomp 317/277,
        landlock_create_ruleset 444/444, landlock_add_rule 445/445,
        landlock_restrict_self 446/446
    """,
    }
)


REFUSED = _table(
    {
        "owners, modes, times and attributes of files, which Landlock does not limit": """
        chmod 90/-, fchmod 91/52, fchmodat 268/53, fchmodat2 452/452, chown 92/-, fchown 93/55,
        lchown 94/-, fchownat 260/54, setxattr 188/5, lsetxattr 189/6, fsetxattr 190/7,
        removexattr 197/14, lremovexattr 198/15, fremovexattr 199/16, utime 132/-, utimes 235/-,
        utimensat 280/88, futimesat 261/-, mknod 133/-, mknodat 259/33
    """,
        "users and groups, and other rights": """
        setuid 105/146, setgid 106/144, setreuid 113/145, setregid 114/143, setresuid 117/147,
        setresgid 119/149, setfsuid 122/151, setfsgid 123/152, setgroups 116/159,
        lsm_get_self_attr 459/459, lsm_set_self_attr 460/460, lsm_list_modules 461/461
    """,
        "scheduling of other processes of the user": """
        sched_setparam 142/118, sched_setscheduler 144/119, sched_setattr 314/274,
        ioprio_set 251/30, migrate_pages 256/238, move_pages 279/239
    """,
        "memory, descriptors and locks of other processes": """
        ptrace 101/117, process_vm_readv 310/270, process_vm_writev 311/271,
        process_madvise 440/440, process_mrelease 448/448, kcmp 312/272, pidfd_open 434/434,
        pidfd_getfd 438/438, pidfd_send_signal 424/424, get_robust_list 274/100
    """,
        "servers: others would connect to them": """
        bind 49/200, listen 50/201, accept 43/202, accept4 288/242
    """,
        "observation of files and of the machine": """
        inotify_init 253/-, inotify_init1 294/26, inotify_add_watch 254/27,
        inotify_rm_watch 255/28, fanotify_init 300/262, fanotify_mark 301/263,
        perf_event_open 298/241, cachestat 451/451, lookup_dcookie 212/18, syslog 103/116
    """,
        "namespaces and mounts": """
        unshare 272/97, setns 308/268, mount 165/40, umount2 166/39, move_mount 429/429,
        open_tree 428/428, fsopen 430/430, fsconfig 431/431, fsmount 432/432, fspick 433/433,
        mount_setattr 442/442, statmount 457/457, listmount 458/458, pivot_root 155/41,
        chroot 161/51
    """,
        "files by handle, past the folders": """
        name_to_handle_at 303/264, open_by_handle_at 304/265
    """,
        "parts of the kernel with a large attack surface, which computations do not need": """
        bpf 321/280, userfaultfd 323/282, io_uring_setup 425/425, io_uring_enter 426/426,
        io_uring_register 427/427, io_setup 206/0, io_destroy 207/1, io_submit 209/2,
        io_cancel 210/3, io_getevents 208/4, io_pgetevents 333/292, vmsplice 278/75,
        remap_file_pages 216/234, memfd_secret 447/447, modify_ldt 154/-, set_thread_area 205/-,
        get_thread_area 211/-
    """,
        "objects that outlive their processes": """
        shmget 29/194, shmat 30/196, shmctl 31/195, shmdt 67/197, semget 64/190, semop 65/193,
        semtimedop 220/192, semctl 66/191, msgget 68/186, msgsnd 69/189, msgrcv 70/188,
        msgctl 71/187, mq_open 240/180, mq_unlink 241/181, mq_timedsend 242/182,
        mq_timedreceive 243/183, mq_notify 244/184, mq_getsetattr 245/185, add_key 248/217,
        request_key 249/218, keyctl 250/219
    """,
        "the machine: clocks, modules, disks, names": """
        settimeofday 164/170, clock_settime 227/112, clock_adjtime 305/266, adjtimex 159/171,
        init_module 175/105, finit_module 313/273, delete_module 176/106, kexec_load 246/104,
        kexec_file_load 320/294, reboot 169/142, swapon 167/224, swapoff 168/225, sync 162/81,
        syncfs 306/267, quotactl 179/60, quotactl_fd 443/443, acct 163/89, sethostname 170/161,
        setdomainname 171/162, vhangup 153/58, iopl 172/-, ioperm 173/-
    """,
        "calls that Linux has no more, or never had": """
        _sysctl 156/-, afs_syscall 183/-, create_module 174/-, epoll_ctl_old 214/-,
        epoll_wait_old 215/-, get_kernel_syms 177/-, getpmsg 181/-, nfsservctl 180/42,
        putpmsg 182/-, query_module 178/-, security 185/-, sysfs 139/-, tuxcall 184/-,
        uselib 134/-, ustat 136/-, vserver 236/-
    """,
    }
)
# Their flags are in memory, which a filter cannot read. Programs call clone and openat instead.
ABSENT = {"clone3": (435, 435), "openat2": (437, 437)}
