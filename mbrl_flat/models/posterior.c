/* One pass over the weights where the equations of IVON in torch's operators need twenty. */

/* The last three equations of optim/methods/ivon.py; product is the mean of noise times gradient,
 * gain 1 - beta1, decay 1 - beta2, rate and bound include the debiasing of the momentum. */
void posterior_move(float *mean, const float *grad, float *momentum, float *hessian,
                    const float *product, i64 n, float gain, float decay, float delta, float ess,
                    float rate, float pull, float bound) {
#pragma omp simd
    for (i64 i = 0; i < n; i++) {
        float p = hessian[i] + delta, c = hessian[i] / p - ess * product[i];
        float m = momentum[i] + gain * (grad[i] - momentum[i]);
        float h = hessian[i] - decay * p * (c - 0.5f * decay * c * c);
        float step = (m + pull * mean[i]) / (h + delta);
        step = step > bound ? bound : step;
        step = step < -bound ? -bound : step;
        momentum[i] = m, hessian[i] = h, mean[i] -= rate * step;
    }
}
