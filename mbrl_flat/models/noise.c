/* Standard normal numbers by Box and Muller, 512 at a time, from SplitMix64 (Steele, Lea and Flood,
 * "Fast splittable pseudorandom number generators", OOPSLA 2014). optim/noise.py has the same in
 * NumPy. */

enum { NOISE_HALF = 256 };

/* log(x) for 2^-24 <= x <= 1. */
static inline float logf_(float x) {
    int32_t bits;
    memcpy(&bits, &x, 4);
    int32_t power = (bits - 0x3f3504f3) >> 23; /* so that the rest is in [sqrt(1/2), sqrt(2)) */
    bits -= power * (1 << 23);
    float rest, e = (float)power;
    memcpy(&rest, &bits, 4);
    rest -= 1.0f;
    float p = 7.0376836292e-2f;
    p = p * rest - 1.1514610310e-1f;
    p = p * rest + 1.1676998740e-1f;
    p = p * rest - 1.2420140846e-1f;
    p = p * rest + 1.4249322787e-1f;
    p = p * rest - 1.6668057665e-1f;
    p = p * rest + 2.0000714765e-1f;
    p = p * rest - 2.4999993993e-1f;
    p = p * rest + 3.3333331174e-1f;
    float square = rest * rest;
    p = p * rest * square - 2.12194440e-4f * e - 0.5f * square;
    return rest + p + 0.693359375f * e;
}

/* Cosine and sine of a full turn times x, for 0 <= x < 1. */
static inline void turn(float x, float *cosine, float *sine) {
    float quarters = 4.0f * x;
    int32_t whole = (int32_t)(quarters + 0.5f);
    float r = 1.57079632679f * (quarters - (float)whole), z = r * r;
    float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
    float c = ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f);
    c = c * z * z - 0.5f * z + 1.0f;
    float even = whole & 1 ? s : c, odd = whole & 1 ? c : s;
    *cosine = (whole + 1) & 2 ? -even : even;
    *sine = whole & 2 ? -odd : odd;
}

/* out = scale * noise / sqrt(curvature + damping), or scale * noise where curvature is null. */
void normal_noise(float *out, const float *curvature, i64 n, i64 key, float scale, float damping) {
    uint64_t counter = (uint64_t)key;
    for (i64 at = 0; at < n; at += 2 * NOISE_HALF) {
        float x[2 * NOISE_HALF], u[NOISE_HALF], v[NOISE_HALF];
#pragma omp simd
        for (int j = 0; j < NOISE_HALF; j++) {
            uint64_t z = counter + (uint64_t)(j + 1) * 0x9e3779b97f4a7c15u;
            z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
            z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
            z ^= z >> 31;
            u[j] = (float)((int32_t)(z >> 40) + 1) * 0x1p-24f;
            v[j] = (float)(int32_t)(z & 0xffffff) * 0x1p-24f;
        }
        counter += NOISE_HALF * 0x9e3779b97f4a7c15u;
#pragma omp simd
        for (int j = 0; j < NOISE_HALF; j++) {
            float radius = scale * sqrtf(-2.0f * logf_(u[j])), c, s;
            turn(v[j], &c, &s);
            x[j] = radius * c;
            x[NOISE_HALF + j] = radius * s;
        }
        i64 m = n - at < 2 * NOISE_HALF ? n - at : 2 * NOISE_HALF;
        if (curvature) {
#pragma omp simd
            for (i64 j = 0; j < m; j++) x[j] *= 1.0f / sqrtf(curvature[at + j] + damping);
        }
        memcpy(out + at, x, sizeof(float) * m);
    }
}
