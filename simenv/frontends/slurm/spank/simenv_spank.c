/* SPANK plugin: `--qpu=NAME[:COUNT][,NAME...]` gives a job of Slurm its share of quantum devices.
 *
 * At submission the request goes into the job-control environment (SPANK_SIMENV_QPU), where
 * job_submit.lua reads it and adds the licences, and PrologSlurmctld reserves for the job. At the
 * start of the job `simenv slurm env` runs as the job's user, finds the reservations, and prints the
 * variables of the job. It runs once for a job: in slurmstepd for a batch script, whose steps
 * inherit the variables, and in srun for a step without one. A refusal fails the task, in task_init:
 * an error in user_init would drain the node. Where no service answers, the command also has Slurm
 * requeue the batch job, as a failure of the prolog does.
 *
 * `--export=NONE` and `--export=NAME,...` leave only variables whose names begin with SLURM_ or
 * SPANK_. So the request of a batch script is read from SLURM_SPANK_SIMENV_QPU, in which Slurm has
 * the job-control environment, and srun sends the variables to its tasks in one SLURM_ variable.
 *
 * Source of the interface: slurm/spank.h, spank(7). Arguments in plugstack.conf:
 *
 *     simenv=PATH service=ADDRESS cluster=NAME [gateway=URL] [ca=FILE] [munge=SOCKET]
 *     [option=NAME] [timeout=SECONDS]
 *
 * `option`: name of the option instead of qpu, where another plugin has an option of that name.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <slurm/slurm.h>
#include <slurm/spank.h>

SPANK_PLUGIN(simenv, 1)

enum {
    MAX_REQUEST = 512,     /* characters of the option */
    MAX_NAME = 64,         /* of one device */
    MAX_OPTION = 32,       /* of the name of the option */
    MAX_DEVICES = 8,       /* of one job */
    MAX_COUNT = 4096,      /* of one device */
    MAX_NAMES = 64,        /* variables that a batch script is searched for */
    MAX_OUTPUT = 64 * 1024, /* bytes of the command's output */
    MAX_ERROR = 2048,
    TIMEOUT_S = 60,        /* of the command, unless timeout= says otherwise */
    MAX_TIMEOUT_S = 600,
    MAX_GROUPS = 1024,
    MAX_DESCRIPTORS = 4096, /* where the kernel cannot close them all at once */
    END_MS = 2000,          /* after SIGKILL: a process that the kernel does not end is left */
    PAUSE_MS = 5,           /* between two looks for the end of the command */
};

#define JOB_VARIABLE "SIMENV_SLURM_JOB" /* the job that the variables belong to */
#define SET_VARIABLE "SIMENV_SLURM_SET" /* NAME=HASH,...: the variables of that job */
#define STEP_VARIABLE "SLURM_SIMENV_STEP" /* lines NAME=VALUE, from srun to its tasks */
#define REQUEST "SIMENV_QPU"              /* in the job-control environment */
#define REQUEST_VARIABLE "SLURM_SPANK_" REQUEST
/* Variables of a job in the environment of `simenv slurm env`: what QRMI's plugin has set for it,
 * and certificates that its user trusts. */
static const char *const FORWARDED[] = {
    "QRMI_JOB_ID", "QRMI_JOB_QPU_RESOURCES", "QRMI_JOB_QPU_TYPES",
    "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE",
};
enum { FORWARD_COUNT = sizeof FORWARDED / sizeof *FORWARDED };

static char option_name[MAX_OPTION] = "qpu";
/* In which Slurm has the option: for a batch script, and for commands of that script. */
static char option_variables[2][128];
static char request[MAX_REQUEST]; /* "": the job asks for no device */
static bool is_given;             /* since the last component of a heterogeneous job */
static char failure[MAX_ERROR];   /* why there is no reservation; "": there is one */

struct settings {
    const char *simenv, *service, *cluster, *gateway, *ca, *munge, *option;
    long timeout_s;
};

/* --- the option --------------------------------------------------------------------------- */

static bool is_name_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           c == '_' || c == '.' || c == '-';
}

/* Return the end of "NAME[:COUNT]" at `text`; NULL if there is no such thing. */
static const char *device_end(const char *text)
{
    const char *begin = text;
    while (is_name_character(*text))
        text++;
    if (text == begin || text - begin > MAX_NAME)
        return NULL;
    if (*text != ':')
        return text;
    char *end = NULL;
    if (text[1] < '1' || text[1] > '9')
        return NULL;
    long count = strtol(text + 1, &end, 10);
    return count <= MAX_COUNT ? end : NULL;
}

static bool is_request(const char *text)
{
    if (strlen(text) >= MAX_REQUEST)
        return false;
    for (int devices = 1; devices <= MAX_DEVICES; devices++) {
        text = device_end(text);
        if (text == NULL || *text == '\0')
            return text != NULL;
        if (*text++ != ',')
            return false;
    }
    return false;
}

static int on_option(int value, const char *argument, int remote)
{
    (void)value;
    const char *inherited = remote ? NULL : getenv(option_variables[1]);
    if (inherited && argument && spank_context() == S_CTX_ALLOCATOR &&
        strcmp(inherited, argument) == 0) { /* of the component before */
        unsetenv(option_variables[1]);
        return 0;
    }
    if (argument == NULL || !is_request(argument)) {
        slurm_error("--%s=%.80s: NAME[:COUNT][,NAME...] is expected, of at most %d devices, "
                    "COUNT from 1 to %d", option_name, argument ? argument : "", MAX_DEVICES,
                    MAX_COUNT);
        return -1;
    }
    strcpy(request, argument);
    is_given = true;
    return 0;
}

static struct spank_option option = {
    option_name, "NAME[:COUNT][,...]", "Reserve COUNT workers of quantum devices of simenv.", 1, 0,
    on_option,
};

/* --- settings ----------------------------------------------------------------------------- */

static int read_settings(struct settings *settings, int count, char **words)
{
    *settings = (struct settings){.timeout_s = TIMEOUT_S};
    const struct {
        const char *key;
        const char **value;
    } known[] = {
        {"simenv=", &settings->simenv},   {"service=", &settings->service},
        {"cluster=", &settings->cluster}, {"gateway=", &settings->gateway},
        {"ca=", &settings->ca},           {"munge=", &settings->munge},
        {"option=", &settings->option},
    };
    for (int k = 0; k < count; k++) {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            size_t length = strlen(known[i].key);
            if (strncmp(words[k], known[i].key, length) == 0) {
                *known[i].value = words[k] + length;
                found = true;
            }
        }
        if (strncmp(words[k], "timeout=", 8) == 0) {
            settings->timeout_s = strtol(words[k] + 8, NULL, 10);
            found = settings->timeout_s >= 1 && settings->timeout_s <= MAX_TIMEOUT_S;
        }
        if (!found) {
            slurm_error("simenv: plugstack.conf has %.80s, which is not understood", words[k]);
            return -1;
        }
    }
    if (!settings->simenv || !settings->service || !settings->cluster) {
        slurm_error("simenv: plugstack.conf lacks simenv=, service= or cluster=");
        return -1;
    }
    return 0;
}

/* Set the names of the option and of its variables. The other arguments matter only to jobs that use it. */
static int read_option_name(int count, char **words)
{
    for (int k = 0; k < count; k++) {
        if (strncmp(words[k], "option=", 7) != 0)
            continue;
        const char *name = words[k] + 7;
        size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");
        if (name[0] < 'a' || name[length] != '\0' || length >= MAX_OPTION) {
            slurm_error("simenv: plugstack.conf has %.80s; a name of an option has lower-case "
                        "letters, digits and -, at most %d", words[k], MAX_OPTION - 1);
            return -1;
        }
        strcpy(option_name, name);
    }
    static const char *const FORMS[] = {
        "_SLURM_SPANK_OPTION_simenv_%s", "SLURM_SPANK__SLURM_SPANK_OPTION_simenv_%s",
    };
    for (int k = 0; k < 2; k++) {
        snprintf(option_variables[k], sizeof option_variables[k], FORMS[k], option_name);
        for (char *c = option_variables[k]; *c; c++)
            *c = *c == '-' ? '_' : *c;
    }
    return 0;
}

/* --- the command -------------------------------------------------------------------------- */

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

struct user {
    uid_t uid;
    gid_t gid;
    int group_count; /* -1: this process is the user's */
    gid_t groups[MAX_GROUPS];
};

/* Close all descriptors above stderr. */
static void close_others(void)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 3U, ~0U, 0U) == 0)
        return;
#endif
    for (int descriptor = 3; descriptor < MAX_DESCRIPTORS; descriptor++)
        close(descriptor);
}

/* In the child: become the user, and run the command. Does not return. Only functions that are safe
 * after the fork of a process with threads. */
static void run_as(const struct user *user, int out, int err, char **argv, char **environ_of_it)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    setsid();
    int null = open("/dev/null", O_RDONLY);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0 || chdir("/") < 0)
        _exit(126);
    close_others();
    if (user->group_count >= 0) {
        if (seteuid(0) < 0 || setgroups((size_t)user->group_count, user->groups) < 0 ||
            setresgid(user->gid, user->gid, user->gid) < 0 ||
            setresuid(user->uid, user->uid, user->uid) < 0)
            _exit(126);
    }
    execve(argv[0], argv, environ_of_it);
    _exit(127);
}

/* Read what the command prints until it has closed both pipes. Returns false after `end_s`.
 * `is_cut`: the output has more bytes than MAX_OUTPUT. */
static bool drain(int out, int err, char *output, char *error, double end_s, bool *is_cut)
{
    struct pollfd polled[2] = {{out, POLLIN, 0}, {err, POLLIN, 0}};
    char *targets[2] = {output, error};
    size_t limits[2] = {MAX_OUTPUT - 1, MAX_ERROR - 1}, used[2] = {0, 0};
    while (polled[0].fd >= 0 || polled[1].fd >= 0) {
        double left_s = end_s - now_s();
        if (left_s <= 0)
            return false;
        if (poll(polled, 2, (int)(left_s * 1e3) + 1) < 0 && errno != EINTR)
            return false;
        for (int k = 0; k < 2; k++) {
            if (polled[k].fd < 0 || !polled[k].revents)
                continue;
            char rest[1024];
            bool is_full = used[k] >= limits[k];
            char *target = is_full ? rest : targets[k] + used[k];
            ssize_t got = read(polled[k].fd, target, is_full ? sizeof rest : limits[k] - used[k]);
            if (got > 0)
                used[k] += is_full ? 0 : (size_t)got;
            if (got > 0 && is_full && k == 0)
                *is_cut = true;
            if (got == 0 || (got < 0 && errno != EINTR))
                polled[k].fd = -1;
        }
    }
    output[used[0]] = error[used[1]] = '\0';
    return true;
}

/* Wait until a child has ended, and leave it for waitpid. Returns false after `end_s`. */
static bool has_ended(pid_t child, double end_s)
{
    for (;;) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0) {
            if (info.si_pid == child)
                return true;
        } else if (errno != EINTR) {
            return true; /* it is nobody's any more */
        }
        if (now_s() >= end_s)
            return false;
        poll(NULL, 0, PAUSE_MS);
    }
}

/* Run the command, and collect its output. At its end, or after `timeout_s`, nothing is left of its
 * process group. Returns its exit status; -1 with `error` set. */
static int run(const struct user *user, char **argv, char **environ_of_it, long timeout_s,
               char *output, char *error)
{
    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC) < 0)
        return -1;
    if (pipe2(err, O_CLOEXEC) < 0) {
        close(out[0]);
        close(out[1]);
        return -1;
    }
    pid_t child = fork();
    if (child == 0)
        run_as(user, out[1], err[1], argv, environ_of_it);
    close(out[1]);
    close(err[1]);
    double end_s = now_s() + (double)timeout_s;
    bool is_cut = false;
    bool is_complete = child > 0 && drain(out[0], err[0], output, error, end_s, &is_cut) &&
                       has_ended(child, end_s);
    close(out[0]);
    close(err[0]);
    if (child < 0)
        return -1;
    kill(-child, SIGKILL); /* the group is not another's before the child is waited for */
    kill(child, SIGKILL);
    int status = 0;
    if (!has_ended(child, now_s() + END_MS * 1e-3) || waitpid(child, &status, 0) < 0)
        is_complete = false;
    if (is_complete && is_cut && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        snprintf(error, MAX_ERROR, "the command prints more than %d bytes", MAX_OUTPUT - 1);
        return -1;
    }
    if (!is_complete)
        snprintf(error, MAX_ERROR, "no answer within %ld s (timeout= in plugstack.conf)", timeout_s);
    return is_complete && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* --- the job ------------------------------------------------------------------------------ */

static void set_variable(spank_t spank, bool is_remote, const char *name, const char *value,
                         int overwrite)
{
    if (is_remote)
        spank_setenv(spank, name, value, overwrite);
    else
        setenv(name, value, overwrite);
}

/* Copy the value of a variable of the job. Returns false if there is none that fits. */
static bool get_variable(spank_t spank, bool is_remote, const char *name, char *value, int size)
{
    if (is_remote)
        return spank_getenv(spank, name, value, size) == ESPANK_SUCCESS;
    const char *found = getenv(name);
    return found && snprintf(value, (size_t)size, "%s", found) < size;
}

/* Set the variables of lines NAME=VALUE. */
static void set_variables(spank_t spank, bool is_remote, char *output, int overwrite)
{
    char *rest = NULL;
    for (char *line = strtok_r(output, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *value = strchr(line, '=');
        if (value == NULL || value == line)
            continue;
        *value++ = '\0';
        set_variable(spank, is_remote, line, value, overwrite);
    }
}

/* 64-bit FNV-1a, as in `simenv.frontends.slurm.jobs`. */
static uint64_t hash_of(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325U;
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3U;
    return hash;
}

static bool is_number(const char *text, uint32_t number)
{
    char written[16];
    snprintf(written, sizeof written, "%u", number);
    return text && strcmp(text, written) == 0;
}

/* Remove from a batch script what was set for the job that submitted it. Invariant: a variable that
 * has another value by now is the user's, and those of QRMI's plugin stay where it acted for the
 * job itself. */
static void remove_inherited(spank_t spank, uint32_t job)
{
    static char set[MAX_OUTPUT], value[MAX_OUTPUT];
    char number[16];
    if (!get_variable(spank, true, SET_VARIABLE, set, sizeof set))
        return;
    bool has_qrmi = get_variable(spank, true, "QRMI_JOB_ID", number, sizeof number) &&
                    is_number(number, job);
    char *rest = NULL;
    int names = 0; /* slurmstepd hashes the value of each, as root */
    for (char *name = strtok_r(set, ",", &rest); name && names++ < MAX_NAMES;
         name = strtok_r(NULL, ",", &rest)) {
        char *hash = strchr(name, '=');
        if (hash == NULL)
            continue;
        *hash++ = '\0';
        if (has_qrmi && strstr(name, "QRMI_"))
            continue;
        if (get_variable(spank, true, name, value, sizeof value) &&
            strtoull(hash, NULL, 16) == hash_of(value))
            spank_unsetenv(spank, name);
    }
    spank_unsetenv(spank, SET_VARIABLE);
}

/* Remove the request, which Slurm would hand on to the jobs that this one submits. */
static void remove_request(spank_t spank)
{
    for (int k = 0; k < 2; k++)
        spank_unsetenv(spank, option_variables[k]);
    spank_unsetenv(spank, REQUEST_VARIABLE);
}

/* In srun: send the variables of the job to the tasks, whatever --export says. Where they are too
 * long, `failure` says so. */
static void send_to_tasks(void)
{
    static char text[MAX_OUTPUT], set[MAX_OUTPUT];
    const char *given = getenv(SET_VARIABLE);
    if (given == NULL)
        return;
    int used = snprintf(text, sizeof text, "%s=%s\n", SET_VARIABLE, given);
    bool fits = used < (int)sizeof text;
    if (fits)
        memcpy(set, given, strlen(given) + 1);
    char *rest = NULL;
    for (char *name = strtok_r(set, ",", &rest); fits && name; name = strtok_r(NULL, ",", &rest)) {
        name[strcspn(name, "=")] = '\0';
        const char *value = getenv(name);
        if (value == NULL || strchr(value, '\n'))
            continue;
        used += snprintf(text + used, sizeof text - (size_t)used, "%s=%s\n", name, value);
        fits = used < (int)sizeof text;
    }
    if (fits)
        setenv(STEP_VARIABLE, text, 1);
    else
        snprintf(failure, sizeof failure,
                 "%s and the variables that it names have more than %d bytes: unset %s",
                 SET_VARIABLE, MAX_OUTPUT - 1, SET_VARIABLE);
}

static int find_user(spank_t spank, bool is_remote, struct user *user)
{
    user->group_count = -1;
    user->uid = geteuid();
    if (!is_remote)
        return 0;
    gid_t *groups = NULL;
    int count = 0;
    if (spank_get_item(spank, S_JOB_UID, &user->uid) != ESPANK_SUCCESS ||
        spank_get_item(spank, S_JOB_GID, &user->gid) != ESPANK_SUCCESS ||
        spank_get_item(spank, S_JOB_SUPPLEMENTARY_GIDS, &groups, &count) != ESPANK_SUCCESS)
        return -1;
    user->group_count = count < MAX_GROUPS ? count : MAX_GROUPS;
    for (int k = 0; k < user->group_count; k++)
        user->groups[k] = groups[k];
    return 0;
}

/* Find the reservations of the job and set its variables; a refusal is in `failure`. */
static void reserve(spank_t spank, bool is_remote, uint32_t job, int count, char **words)
{
    static char output[MAX_OUTPUT], name[MAX_REQUEST], home[PATH_MAX], buffer[8192];
    static char error[MAX_ERROR], service[PATH_MAX], munge[PATH_MAX], conf[PATH_MAX];
    static char forwarded[FORWARD_COUNT][PATH_MAX];
    struct settings settings;
    static struct user user;
    if (read_settings(&settings, count, words) < 0 || find_user(spank, is_remote, &user) < 0) {
        snprintf(failure, sizeof failure, "the plugin of this node is not configured");
        return;
    }
    struct passwd entry, *found = NULL;
    if (getpwuid_r(user.uid, &entry, buffer, sizeof buffer, &found) != 0 || found == NULL) {
        snprintf(failure, sizeof failure, "the user %u has no account on this node", user.uid);
        return;
    }
    char number[16];
    snprintf(number, sizeof number, "%u", job);
    snprintf(home, sizeof home, "HOME=%s", entry.pw_dir);
    snprintf(name, sizeof name, "USER=%s", entry.pw_name);
    snprintf(service, sizeof service, "SIMENV_SERVICE=%s", settings.service);
    char *environ_of_it[10 + FORWARD_COUNT] = {
        "PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", home, name, service,
        /* As python -I: no packages of the user, none beside the command. */
        "PYTHONNOUSERSITE=1", "PYTHONSAFEPATH=1",
    };
    int variables = 7;
    if (settings.munge) {
        snprintf(munge, sizeof munge, "SIMENV_MUNGE_SOCKET=%s", settings.munge);
        environ_of_it[variables++] = munge;
    }
    if (getenv("SLURM_CONF")) { /* for scontrol */
        snprintf(conf, sizeof conf, "SLURM_CONF=%s", getenv("SLURM_CONF"));
        environ_of_it[variables++] = conf;
    }
    for (int k = 0; k < FORWARD_COUNT; k++) {
        int length = snprintf(forwarded[k], PATH_MAX, "%s=", FORWARDED[k]);
        if (get_variable(spank, is_remote, FORWARDED[k], forwarded[k] + length, PATH_MAX - length))
            environ_of_it[variables++] = forwarded[k];
    }
    char *argv[16] = {
        (char *)settings.simenv, "slurm", "env", "--plain", "--job", number, "--qpu", request,
        "--cluster", (char *)settings.cluster,
    };
    int arguments = 10;
    if (settings.gateway) {
        argv[arguments++] = "--gateway";
        argv[arguments++] = (char *)settings.gateway;
    }
    if (settings.ca) {
        argv[arguments++] = "--ca";
        argv[arguments++] = (char *)settings.ca;
    }
    if (is_remote) /* a batch script, which Slurm can repeat */
        argv[arguments++] = "--requeue";
    error[0] = '\0';
    int status = run(&user, argv, environ_of_it, settings.timeout_s, output, error);
    if (status != 0) {
        if (error[0] == '\0')
            snprintf(error, sizeof error, "%s ends with status %d", settings.simenv, status);
        const char *text = strncmp(error, "error: ", 7) == 0 ? error + 7 : error;
        size_t length = strlen(error);
        while (length > 0 && error[length - 1] == '\n')
            error[--length] = '\0';
        snprintf(failure, sizeof failure, "%s", text);
        return;
    }
    set_variables(spank, is_remote, output, 1);
}

/* --- entries of the plugin ---------------------------------------------------------------- */

int slurm_spank_init(spank_t spank, int count, char **words)
{
    spank_context_t context = spank_context();
    if (context == S_CTX_SLURMD || context == S_CTX_JOB_SCRIPT)
        return 0;
    if (read_option_name(count, words) < 0)
        return -1;
    if (context == S_CTX_ALLOCATOR) { /* in a shell of salloc: the request of its job */
        for (int k = 0; k < 2; k++)
            unsetenv(option_variables[k]);
        unsetenv(REQUEST_VARIABLE);
    }
    return spank_option_register(spank, &option) == ESPANK_SUCCESS ? 0 : -1;
}

/* Called for each component of a heterogeneous job, whose script runs in the first. */
int slurm_spank_init_post_opt(spank_t spank, int count, char **words)
{
    static int component;
    (void)count;
    (void)words;
    if (spank_context() == S_CTX_REMOTE)
        return 0;
    bool has_request = is_given;
    is_given = false;
    if (!has_request) {
        spank_job_control_unsetenv(spank, REQUEST); /* of the component before */
        component++;
        return 0;
    }
    if (component++ > 0) {
        slurm_error("--%s=%s: only the first component of a heterogeneous job has a share",
                    option_name, request);
        return -1;
    }
    return spank_job_control_setenv(spank, REQUEST, request, 1) == ESPANK_SUCCESS ? 0 : -1;
}

/* In srun: the tasks get the variables that it has of its job, or those of the reservation. */
int slurm_spank_local_user_init(spank_t spank, int count, char **words)
{
    uint32_t job = 0;
    if (spank_get_item(spank, S_JOB_ID, &job) != ESPANK_SUCCESS)
        return 0;
    if (!is_number(getenv(JOB_VARIABLE), job)) {
        if (request[0] == '\0')
            return 0;
        reserve(spank, false, job, count, words);
    }
    if (failure[0] == '\0')
        send_to_tasks();
    if (failure[0] == '\0')
        return 0;
    slurm_error("--%s=%s: %s", option_name, request, failure);
    return -1;
}

/* In slurmstepd: a batch script, or the tasks of srun. */
int slurm_spank_user_init(spank_t spank, int count, char **words)
{
    static char text[MAX_OUTPUT];
    uint32_t job = 0, step = 0;
    if (spank_get_item(spank, S_JOB_ID, &job) != ESPANK_SUCCESS ||
        spank_get_item(spank, S_JOB_STEPID, &step) != ESPANK_SUCCESS)
        return 0;
    bool has_request = get_variable(spank, true, REQUEST_VARIABLE, text, MAX_REQUEST);
    remove_request(spank);
    if (step != SLURM_BATCH_SCRIPT) {
        if (get_variable(spank, true, STEP_VARIABLE, text, sizeof text))
            set_variables(spank, true, text, 0); /* what the user has set stays */
        spank_unsetenv(spank, STEP_VARIABLE);
        return 0;
    }
    remove_inherited(spank, job);
    if (request[0] == '\0' && has_request) {
        memcpy(request, text, sizeof request);
        if (!is_request(request))
            snprintf(failure, sizeof failure, "%s is not NAME[:COUNT][,NAME...]", REQUEST_VARIABLE);
    }
    if (request[0] != '\0' && failure[0] == '\0')
        reserve(spank, true, job, count, words);
    return 0;
}

int slurm_spank_task_init(spank_t spank, int count, char **words)
{
    (void)spank;
    (void)count;
    (void)words;
    if (failure[0] == '\0')
        return 0;
    slurm_error("--%s=%s: %s", option_name, request, failure);
    return -1;
}
