/* LayerNorm with Mish or SimNorm, and two-hot decoding: one pass over each row, forward and backward.
 *
 * Everything is row-major float32. R rows of D features; the affine parameters of LayerNorm are
 * [K, D], and member k = row / rows_per_member owns a run of rows. Compiled by kernels.py, which
 * also states what each function computes with torch's own operations. No fast-math: a value that
 * is not a number stays one. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef int64_t i64;

/* exp(x) - 1 = scale * rest + (scale - 1), for -87.3 <= x <= 88.3, at whose ends x is cut. */
static inline float split_exp(float x, float *rest) {
    x = x < -87.3f ? -87.3f : x;
    x = x > 88.3f ? 88.3f : x;
    /* Adding 1.5 * 2^23 rounds to an integer, which the low bits of the sum then hold. */
    float shifted = x * 1.44269504f + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &shifted, 4);
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    *rest = p * r * r + r;
    int32_t power = (int32_t)((uint32_t)(bits + 127) << 23);
    float scale;
    memcpy(&scale, &power, 4);
    return scale;
}

/* exp(x) within 2 units in the last place. */
static inline float expf_(float x) {
    float rest, scale = split_exp(x, &rest);
    return (rest + 1.0f) * scale;
}

/* exp(x) - 1 for x >= 0. */
static inline float expm1f_(float x) {
    float rest, scale = split_exp(x, &rest);
    return scale * rest + (scale - 1.0f);
}

static inline float tanhf_(float x) {
    float e = expm1f_(2.0f * fabsf(x));
    return copysignf(e / (e + 2.0f), x);
}

static inline float mish(float x) {
    float e = expf_(x > 20.0f ? 20.0f : x), n = e * (e + 2.0f);
    return x * (n / (n + 2.0f));
}

static inline float mish_slope(float x) {
    float e = expf_(x > 20.0f ? 20.0f : x), n = e * (e + 2.0f), inverse = 1.0f / (n + 2.0f);
    return n * inverse + x * (4.0f * e * (e + 1.0f)) * inverse * inverse;
}

static inline void moments(const float *x, i64 D, float eps, float *mean, float *rstd) {
    float sum = 0.0f, square = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (i64 d = 0; d < D; d++) sum += x[d];
    float m = sum / (float)D;
#pragma omp simd reduction(+ : square)
    for (i64 d = 0; d < D; d++) square += (x[d] - m) * (x[d] - m);
    *mean = m;
    *rstd = 1.0f / sqrtf(square / (float)D + eps);
}

/* Softmax within groups, in place: feature j * G + i is member j of group i. */
static inline void simnorm(float *y, i64 D, i64 size) {
    i64 G = D / size;
    float sum[G], top[G];
    memcpy(top, y, sizeof(float) * G);
    memset(sum, 0, sizeof(float) * G);
    for (i64 j = 1; j < size; j++)
#pragma omp simd
        for (i64 i = 0; i < G; i++) top[i] = y[j * G + i] > top[i] ? y[j * G + i] : top[i];
    for (i64 j = 0; j < size; j++)
#pragma omp simd
        for (i64 i = 0; i < G; i++) {
            float e = expf_(y[j * G + i] - top[i]);
            y[j * G + i] = e;
            sum[i] += e;
        }
#pragma omp simd
    for (i64 i = 0; i < G; i++) sum[i] = 1.0f / sum[i];
    for (i64 j = 0; j < size; j++)
#pragma omp simd
        for (i64 i = 0; i < G; i++) y[j * G + i] *= sum[i];
}

/* x <- (x + bias) * mask, where those are not null; then y = activation(LayerNorm(x) * w + b).
 * Row r takes the bias of group r / bias_rows. The rest is as in norm_forward. */
static void norm_rows(float *x, const float *bias, i64 bias_rows, const float *mask, const float *w,
                      const float *b, float *y, float *moment, i64 R, i64 D, i64 rows_per_member,
                      i64 size, float eps) {
    for (i64 r = 0; r < R; r++, x += D, y += D) {
        const float *wk = w + r / rows_per_member * D, *bk = b + r / rows_per_member * D;
        float mean, rstd;
        if (bias) {
            const float *own = bias + r / bias_rows * D;
#pragma omp simd
            for (i64 d = 0; d < D; d++) x[d] += own[d];
        }
        if (mask) {
            const float *own = mask + r * D;
#pragma omp simd
            for (i64 d = 0; d < D; d++) x[d] *= own[d];
        }
        moments(x, D, eps, &mean, &rstd);
        if (moment) moment[2 * r] = mean, moment[2 * r + 1] = rstd;
        if (size == 0) {
#pragma omp simd
            for (i64 d = 0; d < D; d++) y[d] = mish((x[d] - mean) * rstd * wk[d] + bk[d]);
        } else {
#pragma omp simd
            for (i64 d = 0; d < D; d++) y[d] = (x[d] - mean) * rstd * wk[d] + bk[d];
            simnorm(y, D, size);
        }
    }
}

/* y = activation(LayerNorm(x) * w + b); size is 0 for Mish, else the members of a SimNorm group.
 * moment receives mean and reciprocal deviation of each row, [R, 2], unless it is null. */
void norm_forward(float *x, const float *w, const float *b, float *y, float *moment, i64 R, i64 D,
                  i64 rows_per_member, i64 size, float eps) {
    norm_rows(x, 0, 1, 0, w, b, y, moment, R, D, rows_per_member, size, eps);
}

/* Gradients of norm_forward: gx [R, D], and gw, gb [K, D], which are added to.
 * y is the output, which only SimNorm needs. */
void norm_backward(const float *gy, const float *x, const float *y, const float *w, const float *b,
                   const float *moment, float *gx, float *gw, float *gb, i64 R, i64 D,
                   i64 rows_per_member, i64 size) {
    float hat[D], gu[D], dot[D];
    for (i64 r = 0; r < R; r++, gy += D, x += D, gx += D) {
        i64 member = r / rows_per_member * D;
        const float *wk = w + member, *bk = b + member;
        float *gwk = gw + member, *gbk = gb + member;
        float mean = moment[2 * r], rstd = moment[2 * r + 1], sum = 0.0f, along = 0.0f;
        if (size == 0) {
#pragma omp simd
            for (i64 d = 0; d < D; d++) {
                hat[d] = (x[d] - mean) * rstd;
                gu[d] = gy[d] * mish_slope(hat[d] * wk[d] + bk[d]);
            }
        } else {
            i64 G = D / size;
            const float *p = y + r * D;
            memset(dot, 0, sizeof(float) * G);
            for (i64 j = 0; j < size; j++)
#pragma omp simd
                for (i64 i = 0; i < G; i++) dot[i] += gy[j * G + i] * p[j * G + i];
            for (i64 j = 0; j < size; j++)
#pragma omp simd
                for (i64 i = 0; i < G; i++) {
                    i64 d = j * G + i;
                    hat[d] = (x[d] - mean) * rstd;
                    gu[d] = p[d] * (gy[d] - dot[i]);
                }
        }
#pragma omp simd reduction(+ : sum, along)
        for (i64 d = 0; d < D; d++) {
            float g = gu[d];
            gwk[d] += g * hat[d];
            gbk[d] += g;
            g *= wk[d];
            sum += g;
            along += g * hat[d];
        }
        sum /= (float)D, along /= (float)D;
#pragma omp simd
        for (i64 d = 0; d < D; d++) gx[d] = rstd * (gu[d] * wk[d] - sum - hat[d] * along);
    }
}

/* Probabilities of R rows of N logits into p (one row of scratch), and their mean of the bins. */
static inline float row_softmax(const float *x, float *p, i64 N, float *total, float *top) {
    float m = x[0], sum = 0.0f;
#pragma omp simd reduction(max : m)
    for (i64 n = 0; n < N; n++) m = x[n] > m ? x[n] : m;
#pragma omp simd reduction(+ : sum)
    for (i64 n = 0; n < N; n++) {
        p[n] = expf_(x[n] - m);
        sum += p[n];
    }
    *total = sum, *top = m;
    return 1.0f / sum;
}

/* out[r] = symexp(sum_n softmax(x)_n bins_n). */
void decode_forward(const float *x, const float *bins, float *out, i64 R, i64 N) {
    float scratch[N];
    for (i64 r = 0; r < R; r++, x += N) {
        float total, top, mean = 0.0f, inverse = row_softmax(x, scratch, N, &total, &top);
#pragma omp simd reduction(+ : mean)
        for (i64 n = 0; n < N; n++) mean += scratch[n] * bins[n];
        out[r] = mean * inverse;
    }
#pragma omp simd
    for (i64 r = 0; r < R; r++) out[r] = copysignf(expm1f_(fabsf(out[r])), out[r]);
}

/* gx of decode_forward for gradients g [R]. */
void decode_backward(const float *g, const float *x, const float *bins, float *gx, i64 R,
                     i64 N) {
    float scratch[N];
    for (i64 r = 0; r < R; r++, x += N, gx += N) {
        float total, top, mean = 0.0f, inverse = row_softmax(x, scratch, N, &total, &top);
#pragma omp simd reduction(+ : mean)
        for (i64 n = 0; n < N; n++) mean += scratch[n] * bins[n];
        mean *= inverse;
        float slope = g[r] * expf_(fabsf(mean)) * inverse;
#pragma omp simd
        for (i64 n = 0; n < N; n++) gx[n] = slope * scratch[n] * (bins[n] - mean);
    }
}

/* Two-hot cross entropy: out = log(sum exp x) - ((1 - share) x[lower] + share x[lower + 1]).
 * The T targets serve the rows r, r + T, r + 2 T, ... */
void entropy_forward(const float *x, const i64 *lower, const float *share, float *out,
                     i64 R, i64 N, i64 T) {
    float scratch[N];
    for (i64 r = 0; r < R; r++, x += N) {
        float total, top;
        row_softmax(x, scratch, N, &total, &top);
        i64 low = lower[r % T];
        float s = share[r % T];
        out[r] = top + logf(total) - (x[low] + s * (x[low + 1] - x[low]));
    }
}

void entropy_backward(const float *g, const float *x, const i64 *lower, const float *share,
                      float *gx, i64 R, i64 N, i64 T) {
    float scratch[N];
    for (i64 r = 0; r < R; r++, x += N, gx += N) {
        float total, top, scale = g[r] * row_softmax(x, scratch, N, &total, &top);
#pragma omp simd
        for (i64 n = 0; n < N; n++) gx[n] = scale * scratch[n];
        i64 low = lower[r % T];
        gx[low] -= g[r] * (1.0f - share[r % T]);
        gx[low + 1] -= g[r] * share[r % T];
    }
}

/* Squashed Gaussian: x [R, 2 A] holds means and, before their bounds, logarithms of deviations. Noise
 * rows lie noise_ld apart. entropy and scaled [R] may be null: minus the log density of the action,
 * and A times that of the Gaussian. */
void squash_forward(const float *x, const float *noise, i64 noise_ld, float *a, float *entropy,
                    float *scaled, i64 R, i64 A, float low, float high) {
    for (i64 r = 0; r < R; r++, x += 2 * A, noise += noise_ld, a += A) {
        float log_prob = -0.918938533f * (float)A, volume = 0.0f;
        for (i64 i = 0; i < A; i++) {
            float log_std = low + 0.5f * (high - low) * (tanhf_(x[A + i]) + 1.0f);
            a[i] = tanhf_(x[i] + noise[i] * expf_(log_std));
            if (!entropy) continue;
            float room = 1.0f - a[i] * a[i];
            log_prob -= 0.5f * noise[i] * noise[i] + log_std;
            volume += logf((room > 0.0f ? room : 0.0f) + 1e-6f);
        }
        if (entropy) entropy[r] = volume - log_prob, scaled[r] = -(float)A * log_prob;
    }
}

/* gx of squash_forward for gradients of its three results, each of which may be null. */
void squash_backward(const float *x, const float *noise, const float *a, const float *g_a,
                     const float *g_entropy, const float *g_scaled, float *gx, i64 R, i64 A, float low,
                     float high) {
    float scale = 0.5f * (high - low);
    for (i64 r = 0; r < R; r++)
        for (i64 i = 0; i < A; i++) {
            i64 at = r * A + i, mean = r * 2 * A + i;
            float t = tanhf_(x[mean + A]), room = 1.0f - a[at] * a[at];
            float along = g_a ? g_a[at] : 0.0f, both = g_entropy ? g_entropy[r] : 0.0f;
            if (room > 0.0f) along -= both * 2.0f * a[at] / (room + 1e-6f);
            along *= room;
            both += along * noise[at] * expf_(low + scale * (t + 1.0f));
            if (g_scaled) both += (float)A * g_scaled[r];
            gx[mean] = along, gx[mean + A] = both * scale * (1.0f - t * t);
        }
}

/* Networks of L layers: linear, then, unless size is negative, LayerNorm and activation. M of them
 * read the same x [R, n_in]; network m has the parameters of member members[m]. */

typedef void (*gemm_t)(const char *, const char *, const int *, const int *, const int *,
                       const float *, const float *, const int *, const float *, const int *,
                       const float *, float *, const int *);

typedef struct {
    const float *weight; /* [members, n_out, ld], of which the first n_in columns are read */
    i64 ld, n_in, n_out;
    const float *bias; /* [members, n_out], or one row for each bias_rows rows of x */
    i64 bias_rows;
    const float *gain, *shift;         /* of LayerNorm, [members, n_out] */
    float *g_weight, *g_bias, *g_gain, *g_shift; /* gradients, or null */
    i64 size;
} layer;

#define MAX_LAYERS 16

/* Room for n floats that ends on a cache line: what a product gives depends on the alignment of its
 * operands in the last bits, and must not depend on whether a gradient is kept. */
#define ALIGNED(n) (((n) + 15) / 16 * 16)
#define TAKE(n) (space += ALIGNED(n), space - ALIGNED(n))

/* C [n, m] = A' B' + beta C, all row-major, in terms of a column-major BLAS. */
static void product(gemm_t gemm, char ta, char tb, i64 m, i64 n, i64 k, const float *a, i64 lda,
                    const float *b, i64 ldb, float beta, float *c, i64 ldc) {
    int m_ = (int)m, n_ = (int)n, k_ = (int)k, lda_ = (int)lda, ldb_ = (int)ldb, ldc_ = (int)ldc;
    float one = 1.0f;
    gemm(&ta, &tb, &m_, &n_, &k_, &one, a, &lda_, b, &ldb_, &beta, c, &ldc_);
}

/* saved holds, for each network and normed layer, its linear output [R, n_out], moments [R, 2] and
 * output [R, n_out], each ALIGNED; null if no gradient is wanted. work holds 2 ALIGNED(R widest) floats. mask
 * [M, R, n_out] multiplies the first layer's linear output, unless it is null. */
void networks_forward(gemm_t gemm, const float *x, i64 R, const layer *layers, i64 L,
                      const i64 *members, i64 M, const float *mask, float *out, float *saved,
                      float *work, i64 widest, float eps) {
    for (i64 m = 0; m < M; m++) {
        const float *in = x;
        for (i64 l = 0; l < L; l++) {
            const layer *at = layers + l;
            i64 D = at->n_out, own = members[m] * D;
            float *end = out + m * R * layers[L - 1].n_out, *pre = end, *act = end, *moment = 0;
            if (at->size >= 0 && saved) {
                pre = saved, moment = pre + ALIGNED(R * D);
                if (l < L - 1) act = moment + ALIGNED(2 * R);
                saved = moment + ALIGNED(2 * R) + ALIGNED(R * D);
            } else if (at->size >= 0) {
                pre = work;
                if (l < L - 1) act = work + ALIGNED(R * widest);
            }
            product(gemm, 'T', 'N', D, R, at->n_in, at->weight + own * at->ld, at->ld, in, at->n_in,
                    0.0f, pre, D);
            const float *bias = at->bias_rows < R ? at->bias : at->bias + own;
            if (at->size >= 0)
                norm_rows(pre, bias, at->bias_rows, mask && l == 0 ? mask + m * R * D : 0,
                          at->gain + own, at->shift + own, act, moment, R, D, R, at->size, eps);
            else
                for (i64 r = 0; r < R; r++)
#pragma omp simd
                    for (i64 d = 0; d < D; d++) pre[r * D + d] += bias[r / at->bias_rows * D + d];
            in = act;
        }
    }
}

/* Gradients of networks_forward for g [M, R, n_out]: gx [R, n_in] unless it is null, and those of
 * the layers that are not null; g_gain and g_shift are added to, and with accumulate the others. The
 * first columns of gx, as many as are constant, are left as they are. */
void networks_backward(gemm_t gemm, const float *g, const float *x, i64 R, const layer *layers,
                       i64 L, const i64 *members, i64 M, const float *mask, const float *out,
                       const float *saved, float *gx, float *work, i64 widest, i64 accumulate,
                       i64 constant) {
    for (i64 m = 0; m < M; m++) {
        const float *pre[MAX_LAYERS], *act[MAX_LAYERS];
        for (i64 l = 0; l < L; l++) {
            i64 D = layers[l].n_out;
            act[l] = out + m * R * D;
            if (layers[l].size < 0) continue;
            pre[l] = saved;
            if (l < L - 1) act[l] = saved + ALIGNED(R * D) + ALIGNED(2 * R);
            saved += 2 * ALIGNED(R * D) + ALIGNED(2 * R);
        }
        const float *gy = g + m * R * layers[L - 1].n_out;
        for (i64 l = L - 1; l >= 0; l--) {
            const layer *at = layers + l;
            i64 D = at->n_out, own = members[m] * D;
            const float *gu = gy, *in = l ? act[l - 1] : x;
            if (at->size >= 0) {
                float unused[2 * D];
                memset(unused, 0, sizeof unused);
                float *gg = at->g_gain ? at->g_gain + own : unused;
                float *gs = at->g_shift ? at->g_shift + own : unused + D;
                norm_backward(gy, pre[l], act[l], at->gain + own, at->shift + own, pre[l] + ALIGNED(R * D),
                              work, gg, gs, R, D, R, at->size);
                if (mask && l == 0)
#pragma omp simd
                    for (i64 i = 0; i < R * D; i++) work[i] *= mask[m * R * D + i];
                gu = work;
            }
            if (at->g_weight)
                product(gemm, 'N', 'T', at->n_in, D, R, in, at->n_in, gu, D,
                        accumulate ? 1.0f : 0.0f, at->g_weight + own * at->n_in, at->n_in);
            if (at->g_bias) {
                float *gb = at->g_bias + own;
                if (!accumulate) memset(gb, 0, sizeof(float) * D);
                for (i64 r = 0; r < R; r++)
#pragma omp simd
                    for (i64 d = 0; d < D; d++) gb[d] += gu[r * D + d];
            }
            float *next = l ? work + ALIGNED(R * widest) : gx;
            i64 skip = l ? 0 : constant;
            if (next)
                product(gemm, 'N', 'N', at->n_in - skip, R, D, at->weight + own * at->ld + skip, at->ld, gu, D,
                        l == 0 && m > 0 ? 1.0f : 0.0f, next + skip, at->n_in);
            gy = next;
        }
    }
}
