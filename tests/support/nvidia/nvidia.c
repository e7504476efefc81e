/* A stand-in for libcuda.so.1 and libnvidia-ml.so.1 with their C interfaces, for tests.
 *
 * GPUS, or the variable NVIDIA_GPUS: "UUID,model,MiB,capability,MiB of each instance...;..." in the
 * order of bus addresses: "GPU-aaaa,NVIDIA H200,143771,90"; CUDA: version of CUDA that the driver
 * has; the variable NVIDIA_FAILS: a function that fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 8
enum { SUCCESS = 0, CUDA_NO_DEVICE = 100, NVML_NOT_SUPPORTED = 3, NVML_NOT_FOUND = 6, FAILED = 999 };

typedef struct Gpu {
    char uuid[96], model[96];
    unsigned long long mebibytes;
    int capability, instances;
    struct Gpu *parent;
} Gpu;
typedef struct { unsigned long long total, free, used; } Memory;

static Gpu gpus[MOST], parts[MOST][MOST];
static int count = -1;

static int fails(const char *name) {
    const char *given = getenv("NVIDIA_FAILS");
    return given && !strcmp(given, name);
}

static void read_gpus(void) {
    char text[4096], *rest = text, *item;
    count = 0;
    snprintf(text, sizeof text, "%s", getenv("NVIDIA_GPUS") ? getenv("NVIDIA_GPUS") : GPUS);
    while (count < MOST && (item = strsep(&rest, ";")) && *item) {
        Gpu *gpu = &gpus[count];
        char *field;
        memset(gpu, 0, sizeof *gpu);
        snprintf(gpu->uuid, sizeof gpu->uuid, "%s", strsep(&item, ","));
        snprintf(gpu->model, sizeof gpu->model, "%s", item ? strsep(&item, ",") : "");
        gpu->mebibytes = item ? strtoull(strsep(&item, ","), 0, 10) : 0;
        gpu->capability = item ? atoi(strsep(&item, ",")) : 0;
        while (item && (field = strsep(&item, ",")) && gpu->instances < MOST) {
            Gpu *part = &parts[count][gpu->instances++];
            *part = *gpu;
            snprintf(part->uuid, sizeof part->uuid, "MIG-%d%d", count, gpu->instances);
            part->mebibytes = strtoull(field, 0, 10);
            part->parent = gpu;
        }
        count++;
    }
}

/* libcuda */
int cuDriverGetVersion(int *version) {
    *version = CUDA;
    return SUCCESS;
}

int cuInit(unsigned flags) {
    (void)flags;
    read_gpus();
    return count ? SUCCESS : CUDA_NO_DEVICE;
}

/* Devices that CUDA_VISIBLE_DEVICES names, up to the first that is not there. */
int cuDeviceGetCount(int *found) {
    char text[1024], *rest = text, *word;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    *found = 0;
    if (!visible) {
        *found = count;
        return SUCCESS;
    }
    snprintf(text, sizeof text, "%s", visible);
    while ((word = strsep(&rest, ","))) {
        int k, seen = 0;
        for (k = 0; k < count; k++) {
            int by_number = *word >= '0' && *word <= '9' && atoi(word) == k;
            seen |= by_number || (*word && !strncmp(gpus[k].uuid, word, strlen(word)));
        }
        if (!seen) break;
        ++*found;
    }
    return SUCCESS;
}

/* NVML */
int nvmlInit_v2(void) {
    read_gpus();
    return fails("nvmlInit_v2") ? FAILED : SUCCESS;
}

int nvmlShutdown(void) { return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *found) {
    *found = count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu) {
    if ((int)index >= count) return NVML_NOT_FOUND;
    *gpu = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetUUID(Gpu *gpu, char *text, unsigned bytes) {
    snprintf(text, bytes, "%s", gpu->uuid);
    return SUCCESS;
}

int nvmlDeviceGetName(Gpu *gpu, char *text, unsigned bytes) {
    snprintf(text, bytes, "%s", gpu->model);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(Gpu *gpu, Memory *memory) {
    if (fails("nvmlDeviceGetMemoryInfo")) return FAILED;
    memory->total = memory->free = gpu->mebibytes << 20;
    memory->used = 0;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(Gpu *gpu, int *major, int *minor) {
    *major = gpu->capability / 10;
    *minor = gpu->capability % 10;
    return SUCCESS;
}

/* An H200: 6144 bits at 3201 MHz. */
int nvmlDeviceGetMemoryBusWidth(Gpu *gpu, unsigned *bits) {
    (void)gpu;
    if (fails("nvmlDeviceGetMemoryBusWidth")) return NVML_NOT_SUPPORTED;
    *bits = 6144;
    return SUCCESS;
}

int nvmlDeviceGetMaxClockInfo(Gpu *gpu, int clock, unsigned *megahertz) {
    (void)gpu;
    if (clock != 2) return NVML_NOT_SUPPORTED;
    *megahertz = 3201;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(Gpu *gpu, unsigned *now, unsigned *pending) {
    if (!gpu->instances) return NVML_NOT_SUPPORTED;
    *now = *pending = 1;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(Gpu *gpu, unsigned *most) {
    (void)gpu;
    *most = MOST;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Gpu *gpu, unsigned index, Gpu **part) {
    if ((int)index >= gpu->instances) return NVML_NOT_FOUND;
    *part = &parts[gpu - gpus][index];
    return SUCCESS;
}
