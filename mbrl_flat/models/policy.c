/* TD-MPC2's policy on latents: actions, their values, and the gradient of the policy's weights;
 * agents/tdmpc2/fused_policy.py says what is what. Follows plan.c in one compilation.
 *
 * Rows R run over B subsequences, then T steps. Both functions take the same work: the second one
 * reads there what the first one left. */

typedef struct {
    network policy, q;
    i64 B, T, D, A, bins, widest, least; /* least: the smaller of two values instead of their mean */
    const i64 *heads;                    /* [2] */
    const float *latent, *noise, *mask, *support, *step_weight; /* [R, D], [R, A], [2, R, n], .., [T] */
    float *action, *entropy, *scaled, *value, *work; /* [R, A], then [R] */
} policy_arguments;

typedef struct {
    float *out, *saved_policy, *x, *logits, *saved_q, *decoded, *g_entropy, *grad, *more, *work;
} policy_space;

static i64 lay_out(const policy_arguments *p, policy_space *s) {
    i64 R = p->B * p->T, wide = 2 * R * (p->bins > p->A ? p->bins : p->A);
    float *space = p->work;
    s->out = TAKE(2 * R * p->A), s->saved_policy = TAKE(saved_space(p->policy, R, 1));
    s->x = TAKE(R * (p->D + p->A)), s->logits = TAKE(wide), s->saved_q = TAKE(saved_space(p->q, R, 2));
    s->decoded = TAKE(2 * R), s->g_entropy = TAKE(R), s->grad = TAKE(wide), s->more = TAKE(R * (p->D + p->A));
    s->work = TAKE(2 * ALIGNED(R * p->widest));
    return space - p->work;
}

/* reals: bounds of the logarithm of the deviation, LayerNorm's epsilon. Without work the result is
 * how many floats of it are needed. */
i64 policy_forward(gemm_t gemm, const policy_arguments *p, const float *reals) {
    i64 R = p->B * p->T, D = p->D, A = p->A;
    policy_space s;
    i64 needed = lay_out(p, &s);
    if (!p->work) return needed;
    networks_forward(gemm, p->latent, R, p->policy.layers, p->policy.depth, ONLY, 1, 0, s.out, s.saved_policy,
                     s.work, p->widest, reals[2]);
    squash_forward(s.out, p->noise, A, p->action, p->entropy, p->scaled, R, A, reals[0], reals[1]);
    for (i64 r = 0; r < R; r++) {
        memcpy(s.x + r * (D + A), p->latent + r * D, sizeof(float) * D);
        memcpy(s.x + r * (D + A) + D, p->action + r * A, sizeof(float) * A);
    }
    networks_forward(gemm, s.x, R, p->q.layers, p->q.depth, p->heads, 2, p->mask, s.logits, s.saved_q, s.work,
                     p->widest, reals[2]);
    decode_forward(s.logits, p->support, s.decoded, 2 * R, p->bins);
    for (i64 r = 0; r < R; r++) {
        float one = s.decoded[r], two = s.decoded[R + r];
        /* What is not a number stays one. */
        p->value[r] = p->least ? (one != one || one < two ? one : two) : 0.5f * (one + two);
    }
    return 0;
}

/* reals: as above, then the coefficient of the entropy and one over the scale of the values. The
 * gradients that the policy's layers name are added to where networks_backward does. */
i64 policy_backward(gemm_t gemm, const policy_arguments *p, const float *reals) {
    i64 R = p->B * p->T, D = p->D, A = p->A;
    policy_space s;
    lay_out(p, &s);
    for (i64 r = 0; r < R; r++) {
        float weight = -p->step_weight[r % p->T] / (float)R;
        s.decoded[r] = s.decoded[R + r] = 0.5f * weight * reals[4];
        s.g_entropy[r] = weight * reals[3];
    }
    decode_backward(s.decoded, s.logits, p->support, s.grad, 2 * R, p->bins);
    networks_backward(gemm, s.grad, s.x, R, p->q.layers, p->q.depth, p->heads, 2, p->mask, s.logits, s.saved_q,
                      s.more, s.work, p->widest, 0, D);
    for (i64 r = 0; r < R; r++) memcpy(s.x + r * A, s.more + r * (D + A) + D, sizeof(float) * A);
    squash_backward(s.out, p->noise, p->action, s.x, 0, s.g_entropy, s.grad, R, A, reals[0], reals[1]);
    networks_backward(gemm, s.grad, p->latent, R, p->policy.layers, p->policy.depth, ONLY, 1, 0, s.out,
                      s.saved_policy, 0, s.work, p->widest, 0, 0);
    return 0;
}
