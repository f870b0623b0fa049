// One step of AdaRem or AdaRem-S over a list of dense CPU tensors in one pass over memory: read p, g, m; write p, m.
// max|m| of the next step is taken while m is written. Plain C++ without torch's headers: it compiles in a second.
//
// Results do not depend on the number of threads: chunks are fixed, maxima are exact, norms are summed in chunk order.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

struct Args {
    int64_t tensors;
    const int64_t* numel;
    void** params;
    void** grads;
    void** exp_avgs;    // float, or double for double parameters
    void** maxima;      // max|m| before the step is read, after the step is written
    float** steps;      // counts of steps done
    float** offsets;    // of the count of lam's powers
    const void* shared_maximum;  // divides in place of each tensor's own, or null
    double** alphas;    // AdaRem-S: equivalent norm over radius; null for AdaRem
    double** radii;     // one a sphere
    int64_t spheres;    // 0: AdaRem; 1: all tensors on one sphere; else one sphere a tensor
    int64_t slr;
    int64_t scaled;     // whether gradients are divided by grad_scale, in place too
    double lr, beta, lam, eps, weight_decay;
    double sign;        // -1 to maximize
    double grad_scale;
    int64_t decay_every;
    int64_t threads;
};

namespace {

constexpr int64_t CHUNK = 1 << 15;  // of a thread at a time
constexpr int64_t BLOCK = 1 << 13;  // whose squares float sums up without loss; double takes over from there

template <class To, class From>
inline To bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "");
    To y;
    std::memcpy(&y, &x, sizeof y);
    return y;
}

struct bf16 { uint16_t x; };
struct fp16 { uint16_t x; };

inline float load(float x) { return x; }
inline double load(double x) { return x; }
inline float load(bf16 h) { return bits<float>(uint32_t(h.x) << 16); }
inline float load(fp16 h) {
    const uint32_t magnitude = h.x & 0x7fffu;
    float f = bits<float>(magnitude << 13) * bits<float>(0x77800000u);  // 2^112 moves the exponent's bias
    uint32_t u = bits<uint32_t>(f);
    u = magnitude >= 0x7c00u ? (magnitude << 13) | 0x7f800000u : u;  // inf, NaN
    return bits<float>(u | (uint32_t(h.x & 0x8000u) << 16));
}

inline void store(float& to, float x) { to = x; }
inline void store(double& to, double x) { to = x; }
inline void store(bf16& to, float x) {
    const uint32_t u = bits<uint32_t>(x);
    const uint32_t even = u + 0x7fffu + ((u >> 16) & 1u);
    to.x = uint16_t((x != x ? u | 0x400000u : even) >> 16);
}
inline void store(fp16& to, float x) {
    uint32_t u = bits<uint32_t>(x);
    const uint32_t sign = u & 0x80000000u;
    u ^= sign;
    uint32_t h;
    if (u >= 0x47800000u) {  // too large, inf or NaN
        h = u > 0x7f800000u ? 0x7e00u : 0x7c00u;
    } else if (u < 0x38800000u) {  // subnormal in half: let a float addition round
        h = bits<uint32_t>(bits<float>(u) + 0.5f) - 0x3f000000u;
    } else {
        h = (u + 0xc8000fffu + ((u >> 13) & 1u)) >> 13;
    }
    to.x = uint16_t(h | (sign >> 16));
}

template <class S> struct Int;
template <> struct Int<float> { using type = int32_t; };
template <> struct Int<double> { using type = int64_t; };

template <class S>
struct Rates { S max_m, scale, lam_t, lr, weight_decay, weight, eps, sign, grad_scale; };

// The bits of |m| as an integer keep the order of the numbers, and put NaN above inf above all others.
template <class P, class S, bool PRINTED, bool SCALED, bool NORM>
void update_block(P* __restrict p, P* __restrict gp, S* __restrict m, int64_t n, const Rates<S> r,
                  typename Int<S>::type* max_bits, double* norm2_out) {
    using I = typename Int<S>::type;
    I top = *max_bits;
    S norm2 = 0;
#pragma omp simd reduction(max : top) reduction(+ : norm2)
    for (int64_t i = 0; i < n; ++i) {
        S g = load(gp[i]);
        if (SCALED) {
            g = g / r.grad_scale;
            store(gp[i], g);
        }
        g *= r.sign;
        const S mi = m[i], pi = load(p[i]);
        S u;
        if (PRINTED) {
            u = g + g / (std::fabs(g) * r.max_m + r.eps) * mi * g * r.lam_t;
        } else {
            u = g + std::fabs(g) * (mi * r.scale);
        }
        store(p[i], pi - r.lr * (u + r.weight_decay * pi));
        // As torch.lerp: from the nearer end, so that beta = 0 gives g itself.
        const S mn = r.weight < S(0.5) ? mi + r.weight * (g - mi) : g - (g - mi) * (1 - r.weight);
        m[i] = mn;
        const I b = bits<I>(S(std::fabs(mn)));
        top = top < b ? b : top;
        if (NORM) {
            const S next = load(p[i]);
            norm2 += next * next;
        }
    }
    *max_bits = top;
    *norm2_out += norm2;
}

template <class P, class S, bool PRINTED, bool SCALED, bool NORM>
void update(P* p, P* g, S* m, int64_t n, const Rates<S>& r, typename Int<S>::type* max_bits, double* norm2) {
    *max_bits = 0;
    *norm2 = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t left = n - i < BLOCK ? n - i : BLOCK;
        update_block<P, S, PRINTED, SCALED, NORM>(p + i, g + i, m + i, left, r, max_bits, norm2);
    }
}

template <class P>
double square_sum(const P* p, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        const double x = load(p[i]);
        sum += x * x;
    }
    return sum;
}

// The first tensor whose count of steps is none, or -1.
int64_t refused_count(const Args& a) {
    for (int64_t t = 0; t < a.tensors; ++t) {
        const float step = *a.steps[t], offset = *a.offsets[t];
        if (!(step >= 0 && step < 9e18f && std::fabs(offset) < 9e18f)) return t;
        if (offset < 0 && int64_t(offset) + int64_t(step) / a.decay_every < 0) return t;
    }
    return -1;
}

// Whether none of n pieces of memory overlaps one of m others, which are in order and disjoint, or is nowhere.
bool are_clear(int64_t n, const uint64_t* starts, const uint64_t* nbytes, int64_t m, const uint64_t* other_starts,
               const uint64_t* other_ends) {
    for (int64_t i = 0; i < n; ++i) {
        const int64_t later = std::upper_bound(other_starts, other_starts + m, starts[i]) - other_starts;
        if (starts[i] == 0 || (later > 0 && other_ends[later - 1] > starts[i])) return false;
        if (later < m && starts[i] + nbytes[i] > other_starts[later]) return false;
    }
    return true;
}

// Returns -1; or the first tensor whose count of steps is none, with nothing changed.
template <class P, class S>
int64_t step(const Args& a) {
    if (const int64_t refused = refused_count(a); refused >= 0) return refused;
    const bool sphere = a.spheres > 0, slr = sphere && a.slr;
    std::vector<Rates<S>> rates(a.tensors);
    std::vector<int64_t> owner, first(a.tensors + 1);
    for (int64_t t = 0; t < a.tensors; ++t) {
        const S max_m = *static_cast<const S*>(a.shared_maximum ? a.shared_maximum : a.maxima[t]);
        const S lam_t = S(std::pow(a.lam, double(int64_t(*a.offsets[t]) + int64_t(*a.steps[t]) / a.decay_every)));
        const S tiny = sizeof(S) == 4 ? S(1.17549435e-38) : S(2.2250738585072014e-308);
        const double lr = slr ? a.lr / ((1 - a.lr * a.weight_decay) * *a.alphas[t] * *a.alphas[t]) : a.lr;
        rates[t] = {max_m, lam_t / (max_m < tiny ? tiny : max_m), lam_t, S(lr), S(slr ? 0 : a.weight_decay),
                    S(1 - a.beta), S(a.eps), S(a.sign), S(a.grad_scale)};
        first[t] = int64_t(owner.size());
        for (int64_t at = 0; at < a.numel[t]; at += CHUNK) owner.push_back(t);
    }
    const int64_t chunks = first[a.tensors] = int64_t(owner.size());
    using I = typename Int<S>::type;
    std::vector<I> chunk_max(chunks);
    std::vector<double> chunk_norm2(chunks);
    const int threads = chunks < 8 ? 1 : int(a.threads);

    auto run = [&](auto body) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
        for (int64_t c = 0; c < chunks; ++c) {
            const int64_t t = owner[c], at = (c - first[t]) * CHUNK, left = a.numel[t] - at;
            body(c, t, at, left < CHUNK ? left : CHUNK);
        }
    };
    auto pass = [&](auto fn) {
        run([&](int64_t c, int64_t t, int64_t at, int64_t n) {
            fn(static_cast<P*>(a.params[t]) + at, static_cast<P*>(a.grads[t]) + at, static_cast<S*>(a.exp_avgs[t]) + at,
               n, rates[t], &chunk_max[c], &chunk_norm2[c]);
        });
    };
    const bool scaled = a.scaled;
    if (a.eps > 0) {
        if (scaled) pass(update<P, S, true, true, true>); else pass(update<P, S, true, false, true>);
    } else if (sphere) {
        if (scaled) pass(update<P, S, false, true, true>); else pass(update<P, S, false, false, true>);
    } else {
        if (scaled) pass(update<P, S, false, true, false>); else pass(update<P, S, false, false, false>);
    }

    std::vector<double> norm2(a.tensors);
    double total = 0;
    for (int64_t t = 0; t < a.tensors; ++t) {
        I most = 0;
        for (int64_t c = first[t]; c < first[t + 1]; ++c) {
            most = most < chunk_max[c] ? chunk_max[c] : most;
            norm2[t] += chunk_norm2[c];
        }
        // Squares of 32 bits: above or below their range, once more in 64.
        if (sphere && sizeof(S) == 4 && !(norm2[t] > 1e-20 && std::isfinite(norm2[t]))) {
            norm2[t] = square_sum(static_cast<const P*>(a.params[t]), a.numel[t]);
        }
        *static_cast<S*>(a.maxima[t]) = bits<S>(most);
        *a.steps[t] += 1;
        total += norm2[t];
    }
    if (!sphere) return -1;

    std::vector<double> shrink(a.tensors);
    for (int64_t t = 0; t < a.tensors; ++t) {
        shrink[t] = a.spheres == 1 ? *a.radii[0] / std::sqrt(total) : *a.radii[t] / std::sqrt(norm2[t]);
        if (slr) *a.alphas[t] *= (1 - a.lr * a.weight_decay) / shrink[t];
    }
    // Backwards: what the first pass wrote last is still in the cache.
    run([&](int64_t c, int64_t, int64_t, int64_t) {
        c = chunks - 1 - c;
        const int64_t t = owner[c], at = (c - first[t]) * CHUNK, left = a.numel[t] - at;
        const int64_t n = left < CHUNK ? left : CHUNK;
        P* p = static_cast<P*>(a.params[t]) + at;
        const S factor = S(shrink[t]);
        for (int64_t i = 0; i < n; ++i) store(p[i], S(load(p[i]) * factor));
    });
    return -1;
}

// One step of tensors large enough for two threads, against the same step written out; 0 where they agree.
template <class P, class S>
int self_test() {
    const int64_t n = 9 * CHUNK;
    std::vector<P> p(n), g(n);
    std::vector<S> m(n, S(0.25));
    for (int64_t i = 0; i < n; ++i) {
        store(p[i], S(1));
        store(g[i], S(i % 2 ? 0.5 : -0.5));
    }
    S top = S(0.25);
    float steps = 0, offset = 0;
    void *params = p.data(), *grads = g.data(), *exp_avgs = m.data(), *maxima = &top;
    float *step_count = &steps, *decay_offset = &offset;
    Args a = {};
    a.tensors = 1, a.numel = &n, a.params = &params, a.grads = &grads, a.exp_avgs = &exp_avgs, a.maxima = &maxima;
    a.steps = &step_count, a.offsets = &decay_offset, a.lr = 0.125, a.beta = 0.5, a.lam = 1, a.sign = 1, a.decay_every = 1, a.threads = 2;
    step<P, S>(a);  // b is 1 or -1, so that the first elements move by lr 2 g and the others not at all
    for (int64_t i = 0; i < n; ++i) {
        if (load(p[i]) != S(i % 2 ? 0.875 : 1) || m[i] != S(i % 2 ? 0.375 : -0.125)) return 1;
    }
    return top == S(0.375) && steps == 1 ? 0 : 1;
}

}  // namespace

extern "C" {
int adarem_self_test() {
    return self_test<float, float>() | self_test<double, double>() | self_test<bf16, float>() | self_test<fp16, float>();
}
int64_t adarem_refused_count(const Args* a) { return refused_count(*a); }
int64_t adarem_are_clear(int64_t n, const uint64_t* starts, const uint64_t* nbytes, int64_t m,
                         const uint64_t* other_starts, const uint64_t* other_ends) {
    return are_clear(n, starts, nbytes, m, other_starts, other_ends);
}
int64_t adarem_float32(const Args* a) { return step<float, float>(*a); }
int64_t adarem_float64(const Args* a) { return step<double, double>(*a); }
int64_t adarem_bfloat16(const Args* a) { return step<bf16, float>(*a); }
int64_t adarem_float16(const Args* a) { return step<fp16, float>(*a); }
}
