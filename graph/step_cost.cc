#include "graph/step_cost.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace chainpump::graph {
namespace {

using Vector = std::array<double, 3>;
using Matrix = std::array<Vector, 3>;

constexpr double kMemorySteps = 2000;  // the weight of a step falls to 1/e after so many
constexpr double kErrorMemorySteps = 50;
constexpr double kClip = 3;  // in usual errors
constexpr double kUsualErrorMin = 0.02;
// What the prior is worth, in steps that tell its coefficient alone: so little that it may be a
// hundred times off, and enough to share out what the first steps cannot part.
constexpr double kPriorInformation = 1e-5;
constexpr double kRidge = 3e-3;
// The size of a coefficient that the plan knows nothing about.
constexpr Vector kUnknown = {1e-3, 1e-5, 1e-9};

double dot(const Vector& a, const Vector& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// Solves m x = y for a symmetric positive definite m (Cholesky).
Vector solve(const Matrix& m, const Vector& y) {
  Matrix l{};
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = m[i][j];
      for (size_t k = 0; k < j; ++k) sum -= l[i][k] * l[j][k];
      l[i][j] = i == j ? std::sqrt(std::max(sum, 1e-300)) : sum / l[j][j];
    }
  }
  Vector x = y;
  for (size_t i = 0; i < 3; ++i) {
    for (size_t k = 0; k < i; ++k) x[i] -= l[i][k] * x[k];
    x[i] /= l[i][i];
  }
  for (size_t i = 3; i-- > 0;) {
    for (size_t k = i + 1; k < 3; ++k) x[i] -= l[k][i] * x[k];
    x[i] /= l[i][i];
  }
  return x;
}

}  // namespace

void StepWork::add(int64_t num_tokens, int64_t prefix) {
  const auto c = static_cast<double>(num_tokens);
  tokens += num_tokens;
  attended += c * (static_cast<double>(prefix) + c / 2);
}

StepCost::StepCost(const Coefficients& prior) : coefficients_(prior) {
  for (const double value : {prior.overhead_s, prior.token_s, prior.attended_s})
    CHECK_MSG(value >= 0 && std::isfinite(value), "prior {}", value);
  const Vector known = {prior.overhead_s, prior.token_s, prior.attended_s};
  for (size_t i = 0; i < 3; ++i) {
    scale_[i] = known[i] > 0 ? known[i] : kUnknown[i];
    solution_[i] = known[i] / scale_[i];
    information_[i][i] = kPriorInformation;
  }
}

StepCost::Vector StepCost::features(const StepWork& work) const {
  return {scale_[0], scale_[1] * static_cast<double>(work.tokens), scale_[2] * work.attended};
}

// With information A, solution x, features f and measured t the sum of weighted squares is least at
// x + A'^-1 f (t - f x), A' = A with the old faded and f f^T added. The diagonal fades a little
// less than the rest, so that A stays regular in a direction that the steps say nothing about, and
// x stays where it was in it.
void StepCost::observe(const StepWork& work, Duration spent) {
  const double measured_s = to_seconds(spent);
  if (measured_s <= 0) return;
  Vector f = features(work);
  const double size_s = std::max(measured_s, predict_s(work));
  for (double& x : f) x /= size_s;
  const double error = measured_s / size_s - dot(f, solution_);
  // What is off by more than is usual counts for less, both as a correction and as a certainty
  // (Huber's weight): so an outlier moves nothing that many steps have told, yet the first steps of
  // a kind that there was none of before are believed at once.
  const double limit = kClip * usual_error_;
  const double weight = std::abs(error) > limit ? limit / std::abs(error) : 1;
  usual_error_ += (std::abs(error) * weight - usual_error_) / kErrorMemorySteps;
  usual_error_ = std::max(usual_error_, kUsualErrorMin);

  constexpr double kFade = 1 / kMemorySteps;
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j)
      information_[i][j] +=
          weight * f[i] * f[j] - kFade * (i == j ? 1 - kRidge : 1) * information_[i][j];
  const Vector step = solve(information_, f);
  for (size_t i = 0; i < 3; ++i) solution_[i] += step[i] * weight * error;
  project();
}

// The point of the positive corner that is nearest to the solution, as the information measures it:
// a coefficient that would be negative is held at 0 and the others take its share.
void StepCost::project() {
  Vector x = solution_;
  std::array<bool, 3> held{};
  for (int round = 0; round < 3; ++round) {
    const auto least = std::min_element(x.begin(), x.end());
    if (*least >= 0) break;
    held[static_cast<size_t>(least - x.begin())] = true;
    // Minimise (x - solution)^T A (x - solution) over those not held.
    Matrix a = information_;
    Vector y{};
    for (size_t i = 0; i < 3; ++i) y[i] = dot(information_[i], solution_);
    for (size_t i = 0; i < 3; ++i) {
      if (!held[i]) continue;
      for (size_t j = 0; j < 3; ++j) a[i][j] = a[j][i] = 0;
      a[i][i] = 1;
      y[i] = 0;
    }
    x = solve(a, y);
  }
  coefficients_ = {std::max(x[0], 0.0) * scale_[0], std::max(x[1], 0.0) * scale_[1],
                   std::max(x[2], 0.0) * scale_[2]};
}

double StepCost::predict_s(const StepWork& work) const {
  return coefficients_.overhead_s + coefficients_.token_s * static_cast<double>(work.tokens) +
         coefficients_.attended_s * work.attended;
}

// The positive root of d/2 c^2 + (b + d prefix) c = room, in the form that loses no digits.
int32_t StepCost::tokens_within(const StepWork& base, int64_t prefix, double budget_s,
                                int32_t limit) const {
  CHECK_GE(limit, 1);
  if (budget_s == std::numeric_limits<double>::infinity()) return limit;
  const double room_s = budget_s - predict_s(base);
  if (!(room_s > 0)) return 1;
  const double linear =
      coefficients_.token_s + coefficients_.attended_s * static_cast<double>(prefix);
  const double root = std::sqrt(linear * linear + 2 * coefficients_.attended_s * room_s);
  if (linear + root <= 0) return limit;  // tokens cost nothing, for all we know
  const double tokens = std::floor(2 * room_s / (linear + root));
  if (tokens >= static_cast<double>(limit)) return limit;
  return std::max(static_cast<int32_t>(tokens), 1);
}

}  // namespace chainpump::graph
