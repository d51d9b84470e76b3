/* A whole plan of TD-MPC2 for N states in one call; agents/tdmpc2/fused_plan.py says what is what.
 *
 * Follows kernels.c in one compilation. S action sequences of H steps for each state, of which the
 * first P come from the policy; rows run over states, then sequences. */

typedef struct {
    const layer *layers;
    i64 depth;
} network;

typedef struct {
    network dynamics, reward, policy, q;
    i64 D, A, bins, widest;           /* sizes of latent, action, two-hot output, widest layer */
    const float *support;             /* places of the bins */
    float log_std_low, log_std_high, eps;
    float *x, *logits, *decoded, *work; /* space for the rows of one evaluation */
} world;

static const i64 ONLY[] = {0};

static void run(gemm_t gemm, const world *m, network net, const float *x, i64 R, float *out) {
    networks_forward(gemm, x, R, net.layers, net.depth, ONLY, 1, 0, out, 0, m->work, m->widest, m->eps);
}

/* value += weight * decoded logits, of rows that lie R apart for each further head. */
static void add_decoded(const world *m, i64 R, float weight, float *value) {
    decode_forward(m->logits, m->support, m->decoded, R, m->bins);
    for (i64 r = 0; r < R; r++) value[r] += weight * m->decoded[r];
}

static void join(const world *m, const float *z, const float *a, i64 R) {
    for (i64 r = 0; r < R; r++) {
        memcpy(m->x + r * (m->D + m->A), z + r * m->D, sizeof(float) * m->D);
        memcpy(m->x + r * (m->D + m->A) + m->D, a + r * m->A, sizeof(float) * m->A);
    }
}

/* Latents z after actions a [R, A], and their discounted rewards. */
static void advance(gemm_t gemm, const world *m, i64 R, const float *a, float discount, float *z,
                    float *value) {
    join(m, z, a, R);
    run(gemm, m, m->reward, m->x, R, m->logits);
    add_decoded(m, R, discount, value);
    run(gemm, m, m->dynamics, m->x, R, z);
}

/* The same for the first step: R rows share the latents [N, D] in runs of R / N. */
static void depart(gemm_t gemm, const world *m, i64 N, i64 R, const float *latent, const float *a,
                   float *z, float *value) {
    network nets[] = {m->reward, m->dynamics};
    for (int i = 0; i < 2; i++) {
        layer own[MAX_LAYERS];
        memcpy(own, nets[i].layers, sizeof(layer) * nets[i].depth);
        i64 width = own->n_out;
        product(gemm, 'T', 'N', width, N, m->D, own->weight, own->ld, latent, m->D, 0.0f, m->x, width);
        for (i64 n = 0; n < N; n++)
            for (i64 d = 0; d < width; d++) m->x[n * width + d] += own->bias[d];
        own->weight += m->D, own->n_in = m->A, own->bias = m->x, own->bias_rows = R / N;
        nets[i].layers = own;
        run(gemm, m, nets[i], a, R, i ? z : m->logits);
        if (i == 0) add_decoded(m, R, 1.0f, value);
    }
}

/* Actions [R, A] of the policy at z with standard normal noise, whose rows lie noise_ld apart. */
static void act(gemm_t gemm, const world *m, i64 R, const float *z, const float *noise, i64 noise_ld,
                float *a) {
    run(gemm, m, m->policy, z, R, m->logits);
    squash_forward(m->logits, noise, noise_ld, a, 0, 0, R, m->A, m->log_std_low, m->log_std_high);
}

static float boxed(float x) { return x < -1.0f ? -1.0f : x > 1.0f ? 1.0f : x; }

/* Best K of S values, the first of equal ones first, and their softmax. Values are consumed. */
static void choose(float *value, i64 S, i64 K, float temperature, i64 *index, float *best,
                   float *score) {
    float sum = 0.0f;
    for (i64 k = 0; k < K; k++) {
        i64 at = 0;
        for (i64 s = 1; s < S; s++) at = value[s] > value[at] ? s : at;
        index[k] = at, best[k] = value[at], value[at] = -INFINITY;
        score[k] = expf(temperature * (best[k] - best[0]));
        sum += score[k];
    }
    for (i64 k = 0; k < K; k++) score[k] /= sum;
}

/* Mean and deviation [HA], between two bounds, of elites [K, HA]. */
static void refit(const float *elites, const float *score, i64 K, i64 HA, const float *bounds,
                  float *mean, float *std) {
    for (i64 i = 0; i < HA; i++) {
        float first = 0.0f, second = 0.0f;
        for (i64 k = 0; k < K; k++) first += score[k] * elites[k * HA + i];
        for (i64 k = 0; k < K; k++) {
            float off = elites[k * HA + i] - first;
            second += score[k] * off * off;
        }
        second = sqrtf(second);
        mean[i] = first;
        std[i] = second < bounds[0] ? bounds[0] : second > bounds[1] ? bounds[1] : second;
    }
}

typedef struct {
    network dynamics, reward, policy, q;
    i64 N, S, P, H, D, A, K, iterations, bins, widest;
    const float *support, *latent, *prior_noise, *noise, *last_noise;
    const i64 *heads;
    float *mean, *std, *elites, *best, *score, *work;
} plan_arguments;

/* reals: discount, temperature, bounds of the deviation, bounds of the policy's logarithm of it,
 * LayerNorm's epsilon. mean and std hold the start and receive the last fit. Without work the result is
 * how many floats of it are needed. */
i64 plan(gemm_t gemm, const plan_arguments *p, const float *reals) {
    i64 N = p->N, S = p->S, P = p->P, H = p->H, D = p->D, A = p->A, K = p->K, F = S - P, HA = H * A;
    float *space = p->work, gamma = reals[0], end_weight = powf(gamma, (float)H);
    world m = {p->dynamics, p->reward, p->policy, p->q, D, A, p->bins, p->widest, p->support,
               reals[4], reals[5], reals[6], 0, 0, 0, 0};
    /* x also holds the shared part of a first layer. */
    m.x = TAKE(N * S * (D + A > p->widest ? D + A : p->widest));
    m.logits = TAKE(2 * N * S * (p->bins > 2 * A ? p->bins : 2 * A));
    m.decoded = TAKE(2 * N * S);
    m.work = TAKE(2 * ALIGNED(N * S * p->widest));
    float *actions = TAKE(N * S * HA), *ends = TAKE(N * S * D), *z = TAKE(N * S * D);
    float *a = TAKE(N * S * A), *value = TAKE(N * S), *known = TAKE(N * P), *total = TAKE(N * S);
    if (!p->work) return space - p->work;
    i64 index[K];

    /* The policy's own sequences, which stay the same in all iterations. */
    for (i64 n = 0; n < N; n++)
        for (i64 i = 0; i < P; i++) memcpy(z + (n * P + i) * D, p->latent + n * D, sizeof(float) * D);
    memset(known, 0, sizeof(float) * N * P);
    for (i64 t = 0; t < H && P; t++) {
        act(gemm, &m, N * P, z, p->prior_noise + t * A, HA, a);
        for (i64 r = 0; r < N * P; r++)
            memcpy(actions + (r / P * S + r % P) * HA + t * A, a + r * A, sizeof(float) * A);
        advance(gemm, &m, N * P, a, powf(gamma, (float)t), z, known);
    }
    for (i64 n = 0; n < N; n++) memcpy(ends + n * S * D, z + n * P * D, sizeof(float) * P * D);

    for (i64 round = 0; round < p->iterations; round++) {
        for (i64 n = 0; n < N; n++) {
            const float *draw = p->noise + (n * p->iterations + round) * F * HA;
            for (i64 f = 0; f < F; f++)
                for (i64 i = 0; i < HA; i++)
                    actions[(n * S + P + f) * HA + i] =
                        boxed(p->mean[n * HA + i] + p->std[n * HA + i] * draw[f * HA + i]);
        }
        memset(value, 0, sizeof(float) * N * F);
        for (i64 t = 0; t < H; t++) {
            for (i64 r = 0; r < N * F; r++)
                memcpy(a + r * A, actions + (r / F * S + P + r % F) * HA + t * A, sizeof(float) * A);
            if (t == 0)
                depart(gemm, &m, N, N * F, p->latent, a, z, value);
            else
                advance(gemm, &m, N * F, a, powf(gamma, (float)t), z, value);
        }
        for (i64 n = 0; n < N; n++)
            memcpy(ends + (n * S + P) * D, z + n * F * D, sizeof(float) * F * D);
        act(gemm, &m, N * S, ends, p->last_noise + round * N * S * A, A, a);
        join(&m, ends, a, N * S);
        networks_forward(gemm, m.x, N * S, m.q.layers, m.q.depth, p->heads + 2 * round, 2, 0, m.logits,
                         0, m.work, m.widest, m.eps);
        decode_forward(m.logits, m.support, m.decoded, 2 * N * S, m.bins);
        for (i64 r = 0; r < N * S; r++) {
            i64 n = r / S, s = r % S;
            float v = s < P ? known[n * P + s] : value[n * F + s - P];
            v += end_weight * 0.5f * (m.decoded[r] + m.decoded[N * S + r]);
            total[r] = v != v ? 0.0f : v > FLT_MAX ? FLT_MAX : v < -FLT_MAX ? -FLT_MAX : v;
        }
        for (i64 n = 0; n < N; n++) {
            float *elites = p->elites + n * K * HA, *score = p->score + n * K;
            choose(total + n * S, S, K, reals[1], index, p->best + n * K, score);
            for (i64 k = 0; k < K; k++)
                memcpy(elites + k * HA, actions + (n * S + index[k]) * HA, sizeof(float) * HA);
            refit(elites, score, K, HA, reals + 2, p->mean + n * HA, p->std + n * HA);
        }
    }
    return 0;
}
