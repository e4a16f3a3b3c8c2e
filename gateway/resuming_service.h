// A service whose gateway may die and come back, as one that pauses: what was under way when its
// connection was lost is asked for again at the next gateway, from where it was. By the one law
// the tokens that follow are those that would have followed. The client's memory is the record.
//
//   a generation   connection lost   next()                                  cancel()
//   flowing        -> lost           what has come                           passed on
//   lost           -                 tries to go on, within its patience:    ends, cancelled
//                                    -> flowing; or, away for too long, ends
//
// Thread rule: as gateway/service.h.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <type_traits>

#include "gateway/service.h"

namespace chainpump::gateway {

class ResumingService final : public Service {
 public:
  /// Another connection to the service; not_found if it has ended for good.
  using Connect = std::function<Result<std::shared_ptr<Service>>(Duration patience)>;

  /// `away_max`: for how long a gateway may be away.
  ResumingService(std::shared_ptr<Service> first, Connect connect, Duration away_max,
                  const Clock& clock);

  const DeploymentInfo& deployment() const override { return line_->deployment; }
  Status wait_ready(Duration patience) override;
  Result<TokenIds> tokenize(const Prompt& prompt) override;
  Result<std::unique_ptr<Generating>> generate(const GenerateRequest& request) override;
  Result<std::unique_ptr<Scored>> score(const ScoreRequest& request) override;
  Result<StatusReport> status(Duration patience) override;
  Result<Readiness> readiness(Duration patience) override;
  Result<StepEvents> trace(RankId rank, uint64_t since, Duration patience) override;

  /// What all that it has handed out shares: the present connection.
  class Line {
   public:
    Line(std::shared_ptr<Service> first, Connect connect, Duration away, const Clock& c)
        : deployment(first->deployment()),
          away_max(away),
          clock(c),
          connect_(std::move(connect)),
          now_(std::move(first)) {}
    std::shared_ptr<Service> now();
    /// Another than `lost`, which may take `patience`, and is then a deadline_exceeded.
    Result<std::shared_ptr<Service>> after(const std::shared_ptr<Service>& lost, Duration patience);

    const DeploymentInfo deployment;
    const Duration away_max;
    const Clock& clock;

   private:
    const Connect connect_;
    std::mutex connecting_;  // one at a time
    std::mutex mutex_;
    std::shared_ptr<Service> now_;
  };

 private:
  /// Makes a call, again if the connection is lost in it.
  template <typename Call>
  std::invoke_result_t<Call, const std::shared_ptr<Service>&> called(Call call);

  const std::shared_ptr<Line> line_;
};

}  // namespace chainpump::gateway
