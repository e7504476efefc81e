/* A stand-in for libcustatevec.so.1 on the memory of the host, of the functions that the benchmark
 * uses. Their declarations are those of custatevec.h 1.15; with -DHEADER that is included instead, so
 * that a compiler compares them. */
#ifdef HEADER
#include <custatevec.h>
#else
#include <stddef.h>
#include <stdint.h>
typedef struct custatevecContext* custatevecHandle_t;
typedef enum custatevecStatus_t {
    CUSTATEVEC_STATUS_SUCCESS = 0,
    CUSTATEVEC_STATUS_INVALID_VALUE = 3,
    CUSTATEVEC_STATUS_INSUFFICIENT_WORKSPACE = 8
} custatevecStatus_t;
typedef enum cudaDataType_t { CUDA_C_32F = 4, CUDA_C_64F = 5 } cudaDataType_t;
typedef enum custatevecMatrixLayout_t { CUSTATEVEC_MATRIX_LAYOUT_ROW = 1 } custatevecMatrixLayout_t;
typedef enum custatevecComputeType_t {
    CUSTATEVEC_COMPUTE_32F = (1U << 2U),
    CUSTATEVEC_COMPUTE_64F = (1U << 4U)
} custatevecComputeType_t;
#endif
#include <complex.h>
#include <stdlib.h>

enum { MOST_TARGETS = 10, WORKSPACE = 64 };

custatevecStatus_t
custatevecCreate(custatevecHandle_t* handle) {
    *handle = malloc(1);
    return CUSTATEVEC_STATUS_SUCCESS;
}

custatevecStatus_t
custatevecDestroy(custatevecHandle_t handle) {
    free(handle);
    return CUSTATEVEC_STATUS_SUCCESS;
}

const char*
custatevecGetErrorString(custatevecStatus_t status) {
    return status == CUSTATEVEC_STATUS_INVALID_VALUE ? "wrong parameter" : "another error";
}

size_t custatevecGetVersion() { return 11500; }

static int are_types(cudaDataType_t state, cudaDataType_t matrix, custatevecComputeType_t compute) {
    int is_double = state == CUDA_C_64F && compute == CUSTATEVEC_COMPUTE_64F;
    int is_single = state == CUDA_C_32F && compute == CUSTATEVEC_COMPUTE_32F;
    return state == matrix && (is_double || is_single);
}

custatevecStatus_t
custatevecApplyMatrixGetWorkspaceSize(custatevecHandle_t       handle,
                                      cudaDataType_t           svDataType,
                                      const uint32_t           nIndexBits,
                                      const void*              matrix,
                                      cudaDataType_t           matrixDataType,
                                      custatevecMatrixLayout_t layout,
                                      const int32_t            adjoint,
                                      const uint32_t           nTargets,
                                      const uint32_t           nControls,
                                      custatevecComputeType_t  computeType,
                                      size_t*                  extraWorkspaceSizeInBytes) {
    if (!handle || !matrix || adjoint || layout != CUSTATEVEC_MATRIX_LAYOUT_ROW
        || nTargets + nControls > nIndexBits || nTargets > MOST_TARGETS
        || !are_types(svDataType, matrixDataType, computeType))
        return CUSTATEVEC_STATUS_INVALID_VALUE;
    *extraWorkspaceSizeInBytes = nTargets > 2 ? WORKSPACE : 0;
    return CUSTATEVEC_STATUS_SUCCESS;
}

static double complex get(const void *values, size_t at, int is_double) {
    return is_double ? ((const double complex *)values)[at] : ((const float complex *)values)[at];
}

custatevecStatus_t
custatevecApplyMatrix(custatevecHandle_t          handle,
                      void*                       sv,
                      cudaDataType_t              svDataType,
                      const uint32_t              nIndexBits,
                      const void*                 matrix,
                      cudaDataType_t              matrixDataType,
                      custatevecMatrixLayout_t    layout,
                      const int32_t               adjoint,
                      const int32_t*              targets,
                      const uint32_t              nTargets,
                      const int32_t*              controls,
                      const int32_t*              controlBitValues,
                      const uint32_t              nControls,
                      custatevecComputeType_t     computeType,
                      void*                       extraWorkspace,
                      size_t                      extraWorkspaceSizeInBytes) {
    size_t needed, size = (size_t)1 << nTargets, base, row, column, targeted = 0, controlled = 0;
    int is_double = svDataType == CUDA_C_64F;
    uint32_t k;
    custatevecStatus_t status = custatevecApplyMatrixGetWorkspaceSize(
        handle, svDataType, nIndexBits, matrix, matrixDataType, layout, adjoint, nTargets, nControls,
        computeType, &needed);
    if (status != CUSTATEVEC_STATUS_SUCCESS) return status;
    if (needed && (!extraWorkspace || extraWorkspaceSizeInBytes < needed))
        return CUSTATEVEC_STATUS_INSUFFICIENT_WORKSPACE;
    if (!sv || controlBitValues) return CUSTATEVEC_STATUS_INVALID_VALUE;
    for (k = 0; k < nTargets; k++) targeted |= (size_t)1 << targets[k];
    for (k = 0; k < nControls; k++) controlled |= (size_t)1 << controls[k];
    for (base = 0; base < (size_t)1 << nIndexBits; base++) {
        double complex before[1 << MOST_TARGETS];
        if (base & targeted || (base & controlled) != controlled) continue;
        for (row = 0; row < size; row++) {
            size_t at = base;
            for (k = 0; k < nTargets; k++) at |= (row >> k & 1) << targets[k];
            before[row] = get(sv, at, is_double);
        }
        for (row = 0; row < size; row++) {
            size_t at = base;
            double complex sum = 0;
            for (k = 0; k < nTargets; k++) at |= (row >> k & 1) << targets[k];
            for (column = 0; column < size; column++)
                sum += get(matrix, row * size + column, is_double) * before[column];
            if (is_double) ((double complex *)sv)[at] = sum;
            else ((float complex *)sv)[at] = (float complex)sum;
        }
    }
    return CUSTATEVEC_STATUS_SUCCESS;
}
