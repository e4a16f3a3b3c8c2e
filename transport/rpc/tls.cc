#include "transport/rpc/tls.h"

#include <kj/compat/tls.h>
#include <kj/debug.h>

#include <array>
#include <string_view>

#include "transport/rpc/loop.h"

namespace chainpump::transport::rpc {

struct Credentials::Impl {
  Identity identity;
  kj::TlsContext as_client;
  kj::TlsContext as_server;
};

namespace {

kj::TlsContext context_of(const Certified& certified, bool verifies_clients) {
  const kj::TlsCertificate authority(certified.authority.c_str());
  const kj::TlsKeypair own{kj::TlsPrivateKey(certified.key.c_str()),
                           kj::TlsCertificate(certified.certificate.c_str())};
  kj::TlsContext::Options options;
  options.useSystemTrustStore = false;
  options.trustedCertificates = kj::arrayPtr(&authority, 1);
  options.defaultKeypair = own;
  // As a client the library compares the certificate afterwards, and says what is wrong with it.
  options.verifyClients = verifies_clients;
  return kj::TlsContext(kj::mv(options));
}

/// What the library's text says of certificates, as a sentence's end; empty: nothing.
std::string refusal_in(std::string_view text) {
  constexpr std::string_view kReason = "reason = ";
  if (const size_t at = text.find(kReason); at != std::string_view::npos)
    return fmt::format("its certificate is refused here: {}", text.substr(at + kReason.size()));
  if (text.find("certificate verify failed") != std::string_view::npos)
    return "its certificate is not valid here: expired, or not of this cluster's authority";
  if (text.find("peer did not return a certificate") != std::string_view::npos)
    return "it shows no certificate";
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kAlerts = {{
      {"alert certificate expired", "it has expired"},
      {"alert unknown ca", "it is of another cluster's authority"},
      {"alert bad certificate", "it is not valid"},
      {"alert certificate unknown", "it is not valid"},
  }};
  for (const auto& [alert, meaning] : kAlerts)
    if (text.find(alert) != std::string_view::npos)
      return fmt::format("it refuses the certificate of this process: {}", meaning);
  if (text.find("wrong version number") != std::string_view::npos) return "it does not speak TLS";
  return "";
}

/// Over TLS a peer that dies has not said goodbye, which the library takes for a failure.
Error translated(const kj::Exception& exception, const std::string& address) {
  const kj::StringPtr description = exception.getDescription();
  const std::string_view text(description.begin(), description.size());
  if (const std::string refusal = refusal_in(text); !refusal.empty())
    return make_error(ErrorCode::invalid_argument, "{}: {}", address, refusal);
  return make_error(ErrorCode::disconnected, "{}: the connection was lost ({})", address, text);
}

/// A TLS stream whose failures read as ours.
class TranslatedStream final : public kj::AsyncIoStream {
 public:
  TranslatedStream(kj::Own<kj::AsyncIoStream> inner, std::shared_ptr<const Credentials> credentials,
                   std::string address)
      : credentials_(std::move(credentials)), address_(std::move(address)), inner_(kj::mv(inner)) {}

  kj::Promise<size_t> tryRead(void* buffer, size_t at_least, size_t at_most) override {
    return kj::evalNow([&] { return inner_->tryRead(buffer, at_least, at_most); })
        .catch_([this](kj::Exception&& e) -> kj::Promise<size_t> { return ours(e); });
  }
  kj::Promise<void> write(const void* buffer, size_t size) override {
    return kj::evalNow([&] { return inner_->write(buffer, size); })
        .catch_([this](kj::Exception&& e) -> kj::Promise<void> { return ours(e); });
  }
  kj::Promise<void> write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override {
    return kj::evalNow([&] { return inner_->write(pieces); })
        .catch_([this](kj::Exception&& e) -> kj::Promise<void> { return ours(e); });
  }
  kj::Promise<void> whenWriteDisconnected() override { return inner_->whenWriteDisconnected(); }
  void shutdownWrite() override { inner_->shutdownWrite(); }
  void abortRead() override { inner_->abortRead(); }
  void getsockopt(int level, int option, void* value, kj::uint* length) override {
    inner_->getsockopt(level, option, value, length);
  }
  void setsockopt(int level, int option, const void* value, kj::uint length) override {
    inner_->setsockopt(level, option, value, length);
  }

 private:
  kj::Exception ours(const kj::Exception& exception) const {
    const Error error = translated(exception, address_);
    const std::string words = to_text(error);
    return kj::Exception(error.code == ErrorCode::disconnected ? kj::Exception::Type::DISCONNECTED
                                                               : kj::Exception::Type::FAILED,
                         __FILE__, __LINE__, kj::heapString(words.data(), words.size()));
  }

  const std::shared_ptr<const Credentials> credentials_;  // ends after the stream
  const std::string address_;
  kj::Own<kj::AsyncIoStream> inner_;
};

/// Who the peer is, if it may be that.
Identity checked(kj::PeerIdentity& peer, Role role, const std::string& name,
                 const std::string& address) {
  auto& shown = kj::downcast<kj::TlsPeerIdentity>(peer);
  const kj::String common_name = shown.hasCertificate() ? shown.getCommonName() : kj::str();
  const auto identity = identity_from({common_name.begin(), common_name.size()});
  const bool is_expected =
      identity && identity->role == role && (name.empty() || identity->name == name);
  if (!is_expected)
    kj::throwFatalException(
        to_exception(make_error(ErrorCode::invalid_argument, "{}: there is '{}', which is not {}{}",
                                address, common_name.cStr(), name.empty() ? "a " : "",
                                name.empty() ? to_string(role) : to_string(Identity{role, name}))));
  return *identity;
}

kj::AuthenticatedStream stranger(kj::Own<kj::AsyncIoStream> raw) {
  return {kj::mv(raw), kj::UnknownPeerIdentity::newInstance()};
}

}  // namespace

Credentials::Credentials(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Credentials::~Credentials() = default;
const Identity& Credentials::identity() const { return impl_->identity; }

Result<std::shared_ptr<const Credentials>> Credentials::load(const std::filesystem::path& folder) {
  ASSIGN_OR_RETURN(const Certified certified, read_certified(folder));
  // It would print what it calls a warning for every connection, and deaths as errors.
  kj::_::Debug::setLogLevel(kj::LogSeverity::FATAL);
  std::unique_ptr<Impl> impl;
  const auto failed = kj::runCatchingExceptions([&] {
    impl.reset(
        new Impl{certified.identity, context_of(certified, false), context_of(certified, true)});
  });
  KJ_IF_MAYBE (why, failed)
    return make_error(ErrorCode::bad_file, "{}: TLS cannot use it: {}", folder.string(),
                      to_error(*why).message);
  return std::shared_ptr<const Credentials>(std::make_shared<Credentials>(std::move(impl)));
}

kj::Promise<kj::Own<kj::AsyncIoStream>> secure_client(
    kj::Own<kj::AsyncIoStream> raw, std::shared_ptr<const Credentials> credentials,
    Expected expected, std::string address) {
  kj::TlsContext& context = credentials->impl().as_client;
  return kj::evalNow([&] { return context.wrapClient(stranger(kj::mv(raw)), kCertificateHost); })
      .then(
          [credentials, expected,
           address](kj::AuthenticatedStream&& secured) -> kj::Promise<kj::Own<kj::AsyncIoStream>> {
            checked(*secured.peerIdentity, expected.role, expected.name, address);
            return kj::Own<kj::AsyncIoStream>(
                kj::heap<TranslatedStream>(kj::mv(secured.stream), credentials, address));
          },
          [address](kj::Exception&& e) -> kj::Promise<kj::Own<kj::AsyncIoStream>> {
            return to_exception(translated(e, address));
          });
}

kj::Promise<std::pair<kj::Own<kj::AsyncIoStream>, Identity>> secure_server(
    kj::Own<kj::AsyncIoStream> raw, std::shared_ptr<const Credentials> credentials, Role role,
    std::string address) {
  using Secured = std::pair<kj::Own<kj::AsyncIoStream>, Identity>;
  kj::TlsContext& context = credentials->impl().as_server;
  return kj::evalNow([&] { return context.wrapServer(stranger(kj::mv(raw))); })
      .then(
          [credentials, role, address](kj::AuthenticatedStream&& secured) -> kj::Promise<Secured> {
            Identity peer = checked(*secured.peerIdentity, role, "", address);
            return Secured(kj::heap<TranslatedStream>(kj::mv(secured.stream), credentials, address),
                           std::move(peer));
          },
          [address](kj::Exception&& e) -> kj::Promise<Secured> {
            return to_exception(translated(e, address));
          });
}

}  // namespace chainpump::transport::rpc
