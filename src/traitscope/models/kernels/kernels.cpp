// Passes over memory that torch makes in several: norm, gate, softmax, head loss, factor gradients.
//
// Every value is computed in float32 and rounded where transformers rounds it. T is float or bf16.
// Rows are independent of each other, so the number of threads changes no bit.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using bf16 = uint16_t;

constexpr float LOWEST = -INFINITY;
constexpr int64_t LANES = 16;
constexpr int64_t CHUNK = 256;   // logits that are summed before a draw looks inside
constexpr int64_t WIDEST = 256;  // entries of a head, at most
constexpr int ROWS = 8, COLUMNS = 256;  // of one tile of factor gradients: it fits into a cache

inline float load(float value) { return value; }

inline float load(bf16 value) {
    uint32_t bits = uint32_t(value) << 16;
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
}

inline void store(float& place, float value) { place = value; }

// Rounds to the nearest, ties to even. NaN stays NaN.
inline void store(bf16& place, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    place = value == value ? bf16(rounded) : bf16(0x7fc0);
}

template <class T>
inline float rounded(float value) {
    T kept;
    store(kept, value);
    return load(kept);
}

// exp(x) to about one unit in the last place, in operations that compilers vectorise.
inline float exp_of(float x) {
    float bounded = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    float n = std::nearbyint(bounded * 1.44269504f);
    float r = bounded - n * 0.693359375f;
    r += n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t exponent = (int32_t(n) + 127) << 23;
    float power;
    std::memcpy(&power, &exponent, sizeof power);
    float out = x < -87.0f ? 0.0f : p * power;
    return x == x ? out : x;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exp_of(-x)); }

// y = w round(x / sqrt(mean x^2 + eps)); inverse: 1 / sqrt(...) of every row
template <class T>
void norm_row(const T* __restrict x, const T* __restrict w, T* __restrict y, float& inverse,
              int64_t D, float eps) {
    float sum = 0;
    for (int64_t d = 0; d < D; d++) sum += load(x[d]) * load(x[d]);
    float scale = 1.0f / std::sqrt(sum / D + eps);
    inverse = scale;
    for (int64_t d = 0; d < D; d++) store(y[d], load(w[d]) * rounded<T>(load(x[d]) * scale));
}

template <class T>
void norm_row_back(const T* __restrict grad, const T* __restrict x, const T* __restrict w,
                   float scale, T* __restrict grad_x, int64_t D) {
    float dot = 0;
    for (int64_t d = 0; d < D; d++) dot += load(grad[d]) * load(w[d]) * load(x[d]);
    float along = dot * scale * scale / D;
    for (int64_t d = 0; d < D; d++)
        store(grad_x[d], scale * (load(grad[d]) * load(w[d]) - along * load(x[d])));
}

// y = round(silu(gate)) up
template <class T>
void gate_row(const T* __restrict gate, const T* __restrict up, T* __restrict y, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float g = load(gate[i]);
        store(y[i], rounded<T>(g * sigmoid(g)) * load(up[i]));
    }
}

template <class T>
void gate_row_back(const T* __restrict grad, const T* __restrict gate, const T* __restrict up,
                   T* __restrict grad_gate, T* __restrict grad_up, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float g = load(gate[i]), d = load(grad[i]), s = sigmoid(g);
        store(grad_up[i], d * g * s);
        store(grad_gate[i], d * load(up[i]) * s * (1.0f + g * (1.0f - s)));
    }
}

inline int64_t whole_lanes(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// scores = softmax(scale scores + mask), in place; room: whole_lanes(S) floats
//
// The sum runs over lanes, filled up with zeros. So keys that a mask hides change no bit of it, and
// a row computes the same in a wider batch.
template <class T>
void softmax_row(T* __restrict scores, const T* __restrict mask, float* __restrict room, int64_t S,
                 float scale) {
    for (int64_t s = 0; s < S; s++) room[s] = load(scores[s]) * scale;
    if (mask)
        for (int64_t s = 0; s < S; s++) room[s] += load(mask[s]);
    for (int64_t s = S; s < whole_lanes(S); s++) room[s] = LOWEST;
    float top = LOWEST;
#pragma omp simd reduction(max : top)
    for (int64_t s = 0; s < S; s++) top = room[s] > top ? room[s] : top;
    float lanes[LANES] = {};
    for (int64_t s = 0; s < S; s += LANES)
        for (int64_t lane = 0; lane < LANES; lane++) {
            room[s + lane] = exp_of(room[s + lane] - top);
            lanes[lane] += room[s + lane];
        }
    float sum = 0;
    for (int64_t lane = 0; lane < LANES; lane++) sum += lanes[lane];
    float share = 1.0f / sum;
    for (int64_t s = 0; s < S; s++) store(scores[s], room[s] * share);
}

// grad = scale w (grad - sum(grad w)), in place
template <class T>
void softmax_row_back(T* __restrict grad, const T* __restrict weights, int64_t S, float scale) {
    float dot = 0;
    for (int64_t s = 0; s < S; s++) dot += load(grad[s]) * load(weights[s]);
    for (int64_t s = 0; s < S; s++) store(grad[s], scale * load(weights[s]) * (load(grad[s]) - dot));
}

template <class T>
float log_sum_exp(const T* __restrict logits, int64_t V) {
    float top = LOWEST;
#pragma omp simd reduction(max : top)
    for (int64_t v = 0; v < V; v++) {
        float logit = load(logits[v]);
        top = logit > top ? logit : top;
    }
    float sum = 0;
    for (int64_t v = 0; v < V; v++) sum += exp_of(load(logits[v]) - top);
    return top + std::log(sum);
}

// logits = softmax(logits) - shares at ids, in place; returns sum over k of -share log p(id).
// Entries without a share are left out, so an id may stand twice if all but one share is 0.
template <class T>
float head_row(T* __restrict logits, const int64_t* __restrict ids, const float* __restrict shares,
               int64_t V, int64_t K) {
    float total = log_sum_exp(logits, V), loss = 0;
    std::vector<float> wanted(K);
    for (int64_t k = 0; k < K; k++) {
        if (ids[k] < 0 || ids[k] >= V) return NAN;
        float log_p = load(logits[ids[k]]) - total;
        if (shares[k] != 0) loss -= shares[k] * log_p;
        wanted[k] = exp_of(log_p) - shares[k];
    }
    for (int64_t v = 0; v < V; v++) store(logits[v], exp_of(load(logits[v]) - total));
    for (int64_t k = 0; k < K; k++)
        if (shares[k] != 0) store(logits[ids[k]], wanted[k]);
    return loss;
}

// The first index at which exp(logits / temperature), summed up to it, exceeds `random` of its
// whole sum. Chunks are summed first, and then the entries of one.
template <class T>
int64_t drawn_index(const T* __restrict logits, double random, float inverse_temperature,
                    int64_t V) {
    float top = LOWEST;
#pragma omp simd reduction(max : top)
    for (int64_t v = 0; v < V; v++) {
        float logit = load(logits[v]);
        top = logit > top ? logit : top;
    }
    int64_t chunks = (V + CHUNK - 1) / CHUNK;
    std::vector<double> until(chunks);
    double total = 0;
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        int64_t end = (chunk + 1) * CHUNK < V ? (chunk + 1) * CHUNK : V;
        float sum = 0;
        for (int64_t v = chunk * CHUNK; v < end; v++)
            sum += exp_of((load(logits[v]) - top) * inverse_temperature);
        total += sum;
        until[chunk] = total;
    }
    double target = random * total;
    int64_t chunk = 0;
    while (chunk + 1 < chunks && until[chunk] <= target) chunk++;
    double reached = chunk > 0 ? until[chunk - 1] : 0;
    int64_t last = (chunk + 1) * CHUNK < V ? (chunk + 1) * CHUNK - 1 : V - 1;
    for (int64_t v = chunk * CHUNK; v < last; v++) {
        reached += exp_of((load(logits[v]) - top) * inverse_temperature);
        if (reached > target) return v;
    }
    return last;
}

// Attention of one query token: G query heads [G, E] over S keys and values [S, E]. Each key and
// each value is read once for all heads. room: G S + 2 G E floats
template <class T>
void attend_one(const T* __restrict query, const T* __restrict keys, const T* __restrict values,
                const T* __restrict mask, T* __restrict out, float* __restrict room, int64_t G,
                int64_t S, int64_t E, float scale) {
    float* __restrict scores = room;
    float* __restrict heads = room + G * S;
    float* __restrict sums = heads + G * E;
    float entries[WIDEST];
    for (int64_t i = 0; i < G * E; i++) {
        heads[i] = load(query[i]) * scale;
        sums[i] = 0;
    }
    for (int64_t s = 0; s < S; s++) {
        for (int64_t e = 0; e < E; e++) entries[e] = load(keys[s * E + e]);
        float added = mask ? load(mask[s]) : 0.0f;
        for (int64_t g = 0; g < G; g++) {
            float dot = 0;
            for (int64_t e = 0; e < E; e++) dot += heads[g * E + e] * entries[e];
            scores[g * S + s] = dot + added;
        }
    }
    for (int64_t g = 0; g < G; g++) {
        float* __restrict row = scores + g * S;
        float top = LOWEST, sum = 0;
#pragma omp simd reduction(max : top)
        for (int64_t s = 0; s < S; s++) top = row[s] > top ? row[s] : top;
        for (int64_t s = 0; s < S; s++) {
            row[s] = exp_of(row[s] - top);
            sum += row[s];
        }
        for (int64_t s = 0; s < S; s++) row[s] /= sum;
    }
    for (int64_t s = 0; s < S; s++) {
        for (int64_t e = 0; e < E; e++) entries[e] = load(values[s * E + e]);
        for (int64_t g = 0; g < G; g++)
            for (int64_t e = 0; e < E; e++) sums[g * E + e] += scores[g * S + s] * entries[e];
    }
    for (int64_t i = 0; i < G * E; i++) store(out[i], sums[i]);
}

// out [R, C] = scale sum over n of thin [N, R] wide [N, C], for COLUMNS columns from `column` on.
// ROWS rows at a time are read once each, in order, and kept as floats.
template <class T>
void factor_tile(const T* __restrict thin, const T* __restrict wide, float* __restrict out,
                 int64_t N, int64_t R, int64_t C, int64_t column, float scale) {
    int64_t columns = C - column < COLUMNS ? C - column : COLUMNS;
    float rows[ROWS][COLUMNS] = {};
    for (int64_t r = 0; r < R; r++)
        for (int64_t c = 0; c < columns; c++) out[r * C + column + c] = 0;
    for (int64_t start = 0; start < N; start += ROWS) {
        int64_t count = N - start < ROWS ? N - start : ROWS;
        for (int64_t n = 0; n < count; n++) {
            const T* from = wide + (start + n) * C + column;
            for (int64_t c = 0; c < columns; c++) rows[n][c] = load(from[c]);
        }
        for (int64_t r = 0; r < R; r++) {
            float share[ROWS] = {};
            for (int64_t n = 0; n < count; n++) share[n] = scale * load(thin[(start + n) * R + r]);
            float* __restrict sums = out + r * C + column;
            for (int64_t c = 0; c < columns; c++) {
                float sum = sums[c];
                for (int n = 0; n < ROWS; n++) sum += share[n] * rows[n][c];
                sums[c] = sum;
            }
        }
    }
}

template <class T>
void norm(const T* x, const T* w, T* y, float* inverse, int64_t N, int64_t D, float eps) {
#pragma omp parallel for if (N > 32)
    for (int64_t n = 0; n < N; n++) norm_row(x + n * D, w, y + n * D, inverse[n], D, eps);
}

template <class T>
void norm_back(const T* grad, const T* x, const T* w, const float* inverse, T* grad_x, int64_t N,
               int64_t D) {
#pragma omp parallel for if (N > 32)
    for (int64_t n = 0; n < N; n++)
        norm_row_back(grad + n * D, x + n * D, w, inverse[n], grad_x + n * D, D);
}

template <class T>
void gate(const T* gates, const T* up, T* y, int64_t N, int64_t D) {
#pragma omp parallel for if (N > 32)
    for (int64_t n = 0; n < N; n++) gate_row(gates + n * D, up + n * D, y + n * D, D);
}

template <class T>
void gate_back(const T* grad, const T* gates, const T* up, T* grad_gate, T* grad_up, int64_t N,
               int64_t D) {
#pragma omp parallel for if (N > 32)
    for (int64_t n = 0; n < N; n++)
        gate_row_back(grad + n * D, gates + n * D, up + n * D, grad_gate + n * D, grad_up + n * D,
                      D);
}

// scores [B, H, Q, S]; mask [B, Q, S], or [Q, S] with mask_rows 0, or null; room [B H, whole_lanes(S)]
template <class T>
void softmax(T* scores, const T* mask, float* room, int64_t B, int64_t H, int64_t Q, int64_t S,
             int64_t mask_rows, float scale) {
#pragma omp parallel for if (B * H * Q > 32)
    for (int64_t bh = 0; bh < B * H; bh++)
        for (int64_t q = 0; q < Q; q++) {
            const T* of_row = mask ? mask + (bh / H * mask_rows + q) * S : nullptr;
            softmax_row(scores + (bh * Q + q) * S, of_row, room + bh * whole_lanes(S), S, scale);
        }
}

template <class T>
void softmax_back(T* grad, const T* weights, int64_t N, int64_t S, float scale) {
#pragma omp parallel for if (N > 32)
    for (int64_t n = 0; n < N; n++) softmax_row_back(grad + n * S, weights + n * S, S, scale);
}

template <class T>
void head(T* logits, const int64_t* ids, const float* shares, float* loss, int64_t N, int64_t V,
          int64_t K) {
#pragma omp parallel for
    for (int64_t n = 0; n < N; n++)
        loss[n] = head_row(logits + n * V, ids + n * K, shares + n * K, V, K);
}

template <class T>
void log_p(const T* logits, const int64_t* targets, float* out, int64_t N, int64_t V) {
#pragma omp parallel for
    for (int64_t n = 0; n < N; n++)
        out[n] = targets[n] < 0 || targets[n] >= V
                     ? NAN
                     : load(logits[n * V + targets[n]]) - log_sum_exp(logits + n * V, V);
}

template <class T>
void draw(const T* logits, const double* random, int64_t* out, int64_t N, int64_t V,
          float inverse_temperature) {
#pragma omp parallel for
    for (int64_t n = 0; n < N; n++)
        out[n] = drawn_index(logits + n * V, random[n], inverse_temperature, V);
}

// query, out [B K, G, E]; keys, values [B K, room of a head, E], of which S rows are filled; mask
// [B, S], or [S] with mask_rows 0, or null
template <class T>
void attend(const T* query, const T* keys, const T* values, const T* mask, T* out, int64_t BK,
            int64_t K, int64_t G, int64_t S, int64_t E, int64_t head_stride, int64_t mask_rows,
            float scale) {
#pragma omp parallel
    {
        std::vector<float> room(G * (S + 2 * E));
#pragma omp for
        for (int64_t bk = 0; bk < BK; bk++) {
            const T* of_row = mask ? mask + bk / K * mask_rows * S : nullptr;
            attend_one(query + bk * G * E, keys + bk * head_stride, values + bk * head_stride,
                       of_row, out + bk * G * E, room.data(), G, S, E, scale);
        }
    }
}

template <class T>
void factor(const T* thin, const T* wide, float* out, int64_t N, int64_t R, int64_t C,
            float scale) {
#pragma omp parallel for
    for (int64_t column = 0; column < C; column += COLUMNS)
        factor_tile(thin, wide, out, N, R, C, column, scale);
}

}  // namespace


#define EXPORTED(T)                                                                                \
    extern "C" void norm_##T(const T* x, const T* w, T* y, float* inverse, int64_t N, int64_t D,   \
                             float eps) {                                                          \
        norm(x, w, y, inverse, N, D, eps);                                                         \
    }                                                                                              \
    extern "C" void norm_back_##T(const T* grad, const T* x, const T* w, const float* inverse,     \
                                  T* grad_x, int64_t N, int64_t D) {                               \
        norm_back(grad, x, w, inverse, grad_x, N, D);                                              \
    }                                                                                              \
    extern "C" void gate_##T(const T* gates, const T* up, T* y, int64_t N, int64_t D) {            \
        gate(gates, up, y, N, D);                                                                  \
    }                                                                                              \
    extern "C" void gate_back_##T(const T* grad, const T* gates, const T* up, T* grad_gate,        \
                                  T* grad_up, int64_t N, int64_t D) {                              \
        gate_back(grad, gates, up, grad_gate, grad_up, N, D);                                      \
    }                                                                                              \
    extern "C" void softmax_##T(T* scores, const T* mask, float* room, int64_t B, int64_t H,       \
                                int64_t Q, int64_t S, int64_t mask_rows, float scale) {            \
        softmax(scores, mask, room, B, H, Q, S, mask_rows, scale);                                 \
    }                                                                                              \
    extern "C" void softmax_back_##T(T* grad, const T* weights, int64_t N, int64_t S,              \
                                     float scale) {                                                \
        softmax_back(grad, weights, N, S, scale);                                                  \
    }                                                                                              \
    extern "C" void head_##T(T* logits, const int64_t* ids, const float* shares, float* loss,      \
                             int64_t N, int64_t V, int64_t K) {                                    \
        head(logits, ids, shares, loss, N, V, K);                                                  \
    }                                                                                              \
    extern "C" void log_p_##T(const T* logits, const int64_t* targets, float* out, int64_t N,      \
                              int64_t V) {                                                         \
        log_p(logits, targets, out, N, V);                                                         \
    }                                                                                              \
    extern "C" void draw_##T(const T* logits, const double* random, int64_t* out, int64_t N,       \
                             int64_t V, float inverse_temperature) {                               \
        draw(logits, random, out, N, V, inverse_temperature);                                      \
    }                                                                                              \
    extern "C" void attend_##T(const T* query, const T* keys, const T* values, const T* mask,      \
                               T* out, int64_t BK, int64_t K, int64_t G, int64_t S, int64_t E,     \
                               int64_t head_stride, int64_t mask_rows, float scale) {              \
        attend(query, keys, values, mask, out, BK, K, G, S, E, head_stride, mask_rows, scale);     \
    }                                                                                              \
    extern "C" void factor_##T(const T* thin, const T* wide, float* out, int64_t N, int64_t R,     \
                               int64_t C, float scale) {                                           \
        factor(thin, wide, out, N, R, C, scale);                                                   \
    }

EXPORTED(float)
EXPORTED(bf16)
