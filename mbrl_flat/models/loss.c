/* The world-model loss of TD-MPC2 with its gradients; agents/tdmpc2/fused_loss.py says what is what.
 *
 * Follows plan.c in one compilation. Rows run over B subsequences, then their H steps; what belongs
 * to one step alone has the B rows of that step. */

typedef struct {
    network encoder, dynamics, reward, q;
    i64 B, H, D, A, K, bins, widest;
    i64 wants, through; /* gradients at all; of encoder or dynamics */
    const float *obs, *action, *next_latent, *mask;
    const i64 *r_lower;
    const float *r_share;
    const i64 *q_lower;
    const float *q_share, *step_weight; /* [H] */
    float *latents, *parts, *work;      /* [B, H + 1, D]; consistency, reward, value */
} loss_arguments;

/* Room for what networks_backward needs of one network. */
static i64 saved_space(network net, i64 R, i64 M) {
    i64 count = 0;
    for (i64 l = 0; l < net.depth; l++)
        if (net.layers[l].size >= 0) count += 2 * ALIGNED(R * net.layers[l].n_out) + ALIGNED(2 * R);
    return M * count;
}

/* Weighted mean over B of the cross entropies of M heads; their gradient takes the logits' place. */
static float cross_entropies(const loss_arguments *p, i64 M, const i64 *lower, const float *share,
                             float coef, float *logits, float *each, float *grad) {
    i64 T = p->B * p->H;
    double sum = 0.0;
    entropy_forward(logits, lower, share, each, M * T, p->bins, T);
    for (i64 r = 0; r < M * T; r++) {
        float weight = p->step_weight[r % p->H] / (float)(p->B * M);
        sum += (double)(weight * each[r]);
        each[r] = coef * weight;
    }
    if (p->wants) entropy_backward(each, logits, lower, share, grad, M * T, p->bins, T);
    return (float)sum;
}

/* coefs: of consistency, reward, value, then LayerNorm's epsilon. Without work the result is how many
 * floats of it are needed. */
i64 model_loss(gemm_t gemm, const loss_arguments *p, const float *coefs) {
    i64 B = p->B, H = p->H, D = p->D, A = p->A, K = p->K, T = B * H, X = D + A, W = p->widest;
    float *space = p->work, eps = coefs[3];
    i64 heads[K];
    for (i64 k = 0; k < K; k++) heads[k] = k;
    i64 dynamics_space = saved_space(p->dynamics, B, 1);
    float *z = TAKE((H + 1) * B * D), *steps = TAKE(T * X), *x = TAKE(T * X), *work = TAKE(2 * ALIGNED(T * W));
    float *logits = TAKE(K * T * p->bins), *each = TAKE(K * T), *saved_encoder = 0, *saved_dynamics = 0;
    float *saved_reward = 0, *saved_q = 0, *grad = 0, *gx = 0, *more = 0, *gz = 0;
    if (p->wants) {
        saved_encoder = TAKE(saved_space(p->encoder, B, 1)), saved_dynamics = TAKE(H * dynamics_space);
        saved_reward = TAKE(saved_space(p->reward, T, 1)), saved_q = TAKE(saved_space(p->q, T, K));
        grad = TAKE(K * T * p->bins), gx = TAKE(T * X), more = TAKE(T * X), gz = TAKE(B * D);
    }
    if (!p->work) return space - p->work;

    networks_forward(gemm, p->obs, B, p->encoder.layers, p->encoder.depth, ONLY, 1, 0, z, saved_encoder,
                     work, W, eps);
    for (i64 t = 0; t < H; t++) {
        float *at = steps + t * B * X;
        for (i64 b = 0; b < B; b++) {
            memcpy(at + b * X, z + (t * B + b) * D, sizeof(float) * D);
            memcpy(at + b * X + D, p->action + (b * H + t) * A, sizeof(float) * A);
            memcpy(x + (b * H + t) * X, at + b * X, sizeof(float) * X);
        }
        networks_forward(gemm, at, B, p->dynamics.layers, p->dynamics.depth, ONLY, 1, 0,
                         z + (t + 1) * B * D, p->wants ? saved_dynamics + t * dynamics_space : 0, work, W, eps);
    }
    for (i64 t = 0; t <= H; t++)
        for (i64 b = 0; b < B; b++)
            memcpy(p->latents + (b * (H + 1) + t) * D, z + (t * B + b) * D, sizeof(float) * D);

    double sum = 0.0;
    for (i64 t = 0; t < H; t++) {
        double own = 0.0;
        for (i64 b = 0; b < B; b++) {
            const float *here = z + ((t + 1) * B + b) * D, *target = p->next_latent + (b * H + t) * D;
            float square = 0.0f;
#pragma omp simd reduction(+ : square)
            for (i64 d = 0; d < D; d++) square += (here[d] - target[d]) * (here[d] - target[d]);
            own += (double)square;
        }
        sum += own * (double)(p->step_weight[t] / (float)(B * D));
    }
    p->parts[0] = (float)sum;

    networks_forward(gemm, x, T, p->reward.layers, p->reward.depth, ONLY, 1, 0, logits, saved_reward, work, W, eps);
    p->parts[1] = cross_entropies(p, 1, p->r_lower, p->r_share, coefs[1], logits, each, grad);
    if (p->wants)
        networks_backward(gemm, grad, x, T, p->reward.layers, p->reward.depth, ONLY, 1, 0, logits, saved_reward,
                          p->through ? gx : 0, work, W, 0, 0);
    networks_forward(gemm, x, T, p->q.layers, p->q.depth, heads, K, p->mask, logits, saved_q, work, W, eps);
    p->parts[2] = cross_entropies(p, K, p->q_lower, p->q_share, coefs[2], logits, each, grad);
    if (!p->wants) return 0;
    networks_backward(gemm, grad, x, T, p->q.layers, p->q.depth, heads, K, p->mask, logits, saved_q,
                      p->through ? more : 0, work, W, 0, 0);
    if (!p->through) return 0;
    for (i64 i = 0; i < T * X; i++) gx[i] += more[i];

    /* Back through the rollout; more then holds the gradient of one step's input. */
    for (i64 t = H - 1; t >= 0; t--) {
        float scale = 2.0f * coefs[0] * p->step_weight[t] / (float)(B * D);
        for (i64 b = 0; b < B; b++) {
            const float *here = z + ((t + 1) * B + b) * D, *target = p->next_latent + (b * H + t) * D;
            const float *after = gx + (b * H + t + 1) * X, *onwards = more + b * X;
            for (i64 d = 0; d < D; d++)
                gz[b * D + d] = scale * (here[d] - target[d]) + (t + 1 < H ? after[d] + onwards[d] : 0.0f);
        }
        networks_backward(gemm, gz, steps + t * B * X, B, p->dynamics.layers, p->dynamics.depth, ONLY, 1, 0,
                          z + (t + 1) * B * D, saved_dynamics + t * dynamics_space, more, work, W, t + 1 < H, 0);
    }
    for (i64 b = 0; b < B; b++)
        for (i64 d = 0; d < D; d++) gz[b * D + d] = gx[b * H * X + d] + more[b * X + d];
    networks_backward(gemm, gz, p->obs, B, p->encoder.layers, p->encoder.depth, ONLY, 1, 0, z, saved_encoder,
                      0, work, W, 0, 0);
    return 0;
}
