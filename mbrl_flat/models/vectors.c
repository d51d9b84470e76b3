/* Tensors taken together as one long vector, in one call where torch's operators need one a tensor. */

/* Inner product, summed in double precision over rows that are summed in single precision. */
void vectors_dot(float *const *a, float *const *b, const i64 *sizes, i64 count, double *out) {
    enum { ROW = 2048 };
    double total = 0.0;
    for (i64 i = 0; i < count; i++)
        for (i64 at = 0; at < sizes[i]; at += ROW) {
            const float *x = a[i] + at, *y = b[i] + at;
            i64 n = sizes[i] - at < ROW ? sizes[i] - at : ROW;
            float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
            for (i64 j = 0; j < n; j++) sum += x[j] * y[j];
            total += sum;
        }
    *out = total;
}

/* x += scale * direction; what x was goes to saved, unless that is null. */
void vectors_add(float *const *x, float *const *directions, float *const *saved, const i64 *sizes,
                 const float *scales, i64 count) {
    for (i64 i = 0; i < count; i++) {
        float *own = x[i], scale = scales[i];
        const float *direction = directions[i];
        if (saved) {
            float *copy = saved[i];
#pragma omp simd
            for (i64 j = 0; j < sizes[i]; j++) {
                float old = own[j];
                copy[j] = old;
                own[j] = old + scale * direction[j];
            }
        } else {
#pragma omp simd
            for (i64 j = 0; j < sizes[i]; j++) own[j] += scale * direction[j];
        }
    }
}

/* The first `run` of every `periods[i]` entries, until there are sizes[i] of them, times a scale;
 * those of all tensors one after the other. */
void vectors_sample(float *const *directions, const i64 *sizes, const i64 *periods,
                    const float *scales, i64 count, i64 run, float *out) {
    for (i64 i = 0; i < count; out += sizes[i++])
        for (i64 at = 0; at < sizes[i]; at += run) {
            const float *from = directions[i] + at / run * periods[i];
            i64 n = sizes[i] - at < run ? sizes[i] - at : run;
            for (i64 j = 0; j < n; j++) out[at + j] = scales[i] * from[j];
        }
}
