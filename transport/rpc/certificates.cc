#include "transport/rpc/certificates.h"

#include <fcntl.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "base/unique_fd.h"

namespace chainpump::transport::rpc {
namespace {

constexpr int64_t kAuthoritySeconds = int64_t{3650} * 86400;
constexpr int64_t kClockSlackSeconds = 3600;
constexpr size_t kNameMax = 40;
constexpr size_t kFileMax = 64 << 10;

template <auto free_function>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    free_function(object);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Freer<X509_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, Freer<X509_EXTENSION_free>>;
using Number = std::unique_ptr<BIGNUM, Freer<BN_free>>;
using Bio = std::unique_ptr<BIO, Freer<BIO_free>>;

/// What the library says last.
Error openssl_error(const char* call) {
  std::array<char, 256> text{};
  ERR_error_string_n(ERR_get_error(), text.data(), text.size());
  ERR_clear_error();
  return make_error(ErrorCode::internal, "{}: {}", call, text.data());
}

Result<Key> make_key() {
  Key key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  if (!key) return openssl_error("EVP_PKEY_Q_keygen");
  return key;
}

Status extend(X509& certificate, X509& issuer, int kind, const char* value) {
  X509V3_CTX context{};
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, &issuer, &certificate, nullptr, nullptr, 0);
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, kind, value));
  if (!extension || X509_add_ext(&certificate, extension.get(), -1) != 1)
    return openssl_error("X509V3_EXT_conf_nid");
  return ok_status();
}

/// All but its extensions and its signature.
Result<Certificate> begin_certificate(const std::string& common_name, const X509* issuer,
                                      EVP_PKEY& key, int64_t begins_s, int64_t ends_s) {
  Certificate made(X509_new());
  std::array<unsigned char, 16> serial{};
  if (!made || RAND_bytes(serial.data(), serial.size()) != 1) return openssl_error("RAND_bytes");
  serial[0] &= 0x7f;  // a serial number is above 0
  const Number number(BN_bin2bn(serial.data(), serial.size(), nullptr));
  if (!number || BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(made.get())) == nullptr)
    return openssl_error("BN_to_ASN1_INTEGER");
  X509_NAME* name = X509_get_subject_name(made.get());
  if (X509_set_version(made.get(), X509_VERSION_3) != 1 ||
      X509_gmtime_adj(X509_getm_notBefore(made.get()), begins_s) == nullptr ||
      X509_gmtime_adj(X509_getm_notAfter(made.get()), ends_s) == nullptr ||
      X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                 reinterpret_cast<const unsigned char*>(common_name.data()),
                                 static_cast<int>(common_name.size()), -1, 0) != 1 ||
      X509_set_issuer_name(made.get(), issuer != nullptr ? X509_get_subject_name(issuer) : name) !=
          1 ||
      X509_set_pubkey(made.get(), &key) != 1)
    return openssl_error("X509_set_pubkey");
  return made;
}

Status sign(X509& certificate, EVP_PKEY& key) {
  return X509_sign(&certificate, &key, nullptr) > 0 ? ok_status()
                                                    : Status(openssl_error("X509_sign"));
}

// -------------------------------------------------------------------------------- files

std::string text_of(const Bio& bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(std::max(0L, size))};
}

Result<std::string> to_pem(const X509& certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  if (!bio || PEM_write_bio_X509(bio.get(), &certificate) != 1)
    return openssl_error("PEM_write_bio_X509");
  return text_of(bio);
}

Result<std::string> to_pem(const EVP_PKEY& key) {
  const Bio bio(BIO_new(BIO_s_mem()));
  if (!bio || PEM_write_bio_PrivateKey(bio.get(), &key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return openssl_error("PEM_write_bio_PrivateKey");
  return text_of(bio);
}

Status write_new(const std::filesystem::path& path, const std::string& text, mode_t mode) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!file.valid() && errno == EEXIST)
    return make_error(ErrorCode::invalid_argument, "{} is there already; it is not replaced",
                      path.string());
  if (!file.valid() ||
      ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      ::fsync(file.get()) != 0)
    return make_error(ErrorCode::no_room, "{}: cannot be written: {}", path.string(),
                      std::strerror(errno));
  return ok_status();
}

Result<std::string> read_file(const std::filesystem::path& path, bool is_secret) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat found {};
  if (!file.valid() || ::fstat(file.get(), &found) != 0)
    return make_error(ErrorCode::not_found, "{}: {}", path.string(), std::strerror(errno));
  if (is_secret && (found.st_mode & 077) != 0)
    return make_error(ErrorCode::invalid_argument,
                      "{}: others may read this key: chmod 600, and think about who has",
                      path.string());
  std::string text(kFileMax + 1, '\0');
  const ssize_t got = S_ISREG(found.st_mode) ? ::read(file.get(), text.data(), text.size()) : -1;
  if (got < 0 || static_cast<size_t>(got) > kFileMax)
    return make_error(ErrorCode::bad_file, "{}: not a file in PEM format", path.string());
  text.resize(static_cast<size_t>(got));
  return text;
}

Result<Certificate> certificate_from(const std::string& pem, const std::filesystem::path& path) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (!certificate)
    return make_error(ErrorCode::bad_file, "{}: holds no certificate", path.string());
  return certificate;
}

Result<Key> key_from(const std::string& pem, const std::filesystem::path& path) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const auto no_password = [](char*, int, int, void*) { return -1; };
  Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  ERR_clear_error();
  if (!key)
    return make_error(ErrorCode::bad_file, "{}: holds no key without a password", path.string());
  return key;
}

Result<Identity> identity_of(X509& certificate, const std::filesystem::path& path) {
  std::array<char, 128> name{};
  X509_NAME_get_text_by_NID(X509_get_subject_name(&certificate), NID_commonName, name.data(),
                            name.size());
  const std::optional<Identity> identity = identity_from(name.data());
  if (!identity)
    return make_error(ErrorCode::bad_file,
                      "{}: '{}' is not ROLE/NAME, as `chainpump cert issue` writes", path.string(),
                      name.data());
  return *identity;
}

}  // namespace

std::string_view to_string(Role role) {
  switch (role) {
    case Role::coordinator:
      return "coordinator";
    case Role::node:
      return "node";
  }
  return "?";
}

std::string to_string(const Identity& identity) {
  return fmt::format("{}/{}", to_string(identity.role), identity.name);
}

std::optional<Identity> identity_from(std::string_view common_name) {
  const size_t slash = common_name.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  for (const Role role : {Role::coordinator, Role::node})
    if (common_name.substr(0, slash) == to_string(role) &&
        is_certificate_name(common_name.substr(slash + 1)))
      return Identity{role, std::string(common_name.substr(slash + 1))};
  return std::nullopt;
}

bool is_certificate_name(std::string_view name) {
  return !name.empty() && name.size() <= kNameMax &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_';
         });
}

Status make_authority(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    return make_error(ErrorCode::no_room, "{}: cannot be made: {}", folder.string(),
                      error.message());
  std::array<unsigned char, 4> tag{};
  if (RAND_bytes(tag.data(), tag.size()) != 1) return openssl_error("RAND_bytes");
  ASSIGN_OR_RETURN(const Key key, make_key());
  ASSIGN_OR_RETURN(const Certificate own,
                   begin_certificate(fmt::format("chainpump cluster {:02x}", fmt::join(tag, "")),
                                     nullptr, *key, -kClockSlackSeconds, kAuthoritySeconds));
  RETURN_IF_ERROR(extend(*own, *own, NID_basic_constraints, "critical,CA:TRUE,pathlen:0"));
  RETURN_IF_ERROR(extend(*own, *own, NID_key_usage, "critical,keyCertSign"));
  RETURN_IF_ERROR(extend(*own, *own, NID_subject_key_identifier, "hash"));
  RETURN_IF_ERROR(sign(*own, *key));
  ASSIGN_OR_RETURN(const std::string key_pem, to_pem(*key));
  ASSIGN_OR_RETURN(const std::string pem, to_pem(*own));
  RETURN_IF_ERROR(write_new(folder / "ca-key.pem", key_pem, 0600));
  return write_new(folder / "ca.pem", pem, 0644);
}

Result<std::filesystem::path> issue(const std::filesystem::path& authority,
                                    const IssueOptions& options) {
  if (!is_certificate_name(options.identity.name))
    return make_error(ErrorCode::invalid_argument,
                      "'{}' is no name for a certificate: 1 to {} letters, digits, '-' or '_'",
                      options.identity.name, kNameMax);
  ASSIGN_OR_RETURN(const std::string issuer_pem, read_file(authority / "ca.pem", false));
  ASSIGN_OR_RETURN(const std::string issuer_key_pem, read_file(authority / "ca-key.pem", true));
  ASSIGN_OR_RETURN(const Certificate issuer, certificate_from(issuer_pem, authority / "ca.pem"));
  ASSIGN_OR_RETURN(const Key issuer_key, key_from(issuer_key_pem, authority / "ca-key.pem"));
  if (X509_check_private_key(issuer.get(), issuer_key.get()) != 1) {
    ERR_clear_error();
    return make_error(ErrorCode::bad_file, "{}: ca-key.pem is not the key of ca.pem",
                      authority.string());
  }
  ASSIGN_OR_RETURN(const Key key, make_key());
  ASSIGN_OR_RETURN(const Certificate made,
                   begin_certificate(to_string(options.identity), issuer.get(), *key,
                                     options.begins_s, options.ends_s));
  RETURN_IF_ERROR(extend(*made, *issuer, NID_basic_constraints, "critical,CA:FALSE"));
  RETURN_IF_ERROR(extend(*made, *issuer, NID_key_usage, "critical,digitalSignature"));
  RETURN_IF_ERROR(extend(*made, *issuer, NID_ext_key_usage, "serverAuth,clientAuth"));
  RETURN_IF_ERROR(extend(*made, *issuer, NID_authority_key_identifier, "keyid"));
  RETURN_IF_ERROR(extend(*made, *issuer, NID_subject_alt_name,
                         fmt::format("DNS:{}", kCertificateHost).c_str()));
  RETURN_IF_ERROR(sign(*made, *issuer_key));
  ASSIGN_OR_RETURN(const std::string key_pem, to_pem(*key));
  ASSIGN_OR_RETURN(const std::string pem, to_pem(*made));
  const std::filesystem::path folder = authority / options.identity.name;
  if (::mkdir(folder.c_str(), 0700) != 0)
    return make_error(errno == EEXIST ? ErrorCode::invalid_argument : ErrorCode::no_room, "{}: {}",
                      folder.string(),
                      errno == EEXIST ? "there is a certificate of that name; remove it first"
                                      : std::strerror(errno));
  RETURN_IF_ERROR(write_new(folder / "key.pem", key_pem, 0600));
  RETURN_IF_ERROR(write_new(folder / "certificate.pem", pem, 0644));
  RETURN_IF_ERROR(write_new(folder / "ca.pem", issuer_pem, 0644));
  return folder;
}

Result<Certified> read_certified(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "certificate.pem";
  Certified read;
  ASSIGN_OR_RETURN(read.authority, read_file(folder / "ca.pem", false));
  ASSIGN_OR_RETURN(read.certificate, read_file(path, false));
  ASSIGN_OR_RETURN(read.key, read_file(folder / "key.pem", true));
  ASSIGN_OR_RETURN(const Certificate authority,
                   certificate_from(read.authority, folder / "ca.pem"));
  ASSIGN_OR_RETURN(const Certificate own, certificate_from(read.certificate, path));
  ASSIGN_OR_RETURN(const Key key, key_from(read.key, folder / "key.pem"));
  ASSIGN_OR_RETURN(read.identity, identity_of(*own, path));
  const auto wrong = [&](const char* what) {
    ERR_clear_error();
    return make_error(ErrorCode::invalid_argument, "{}: the certificate of {} {}", path.string(),
                      to_string(read.identity), what);
  };
  if (X509_check_private_key(own.get(), key.get()) != 1)
    return wrong("is not of the key beside it");
  const Key authority_key(X509_get_pubkey(authority.get()));
  if (!authority_key || X509_verify(own.get(), authority_key.get()) != 1)
    return wrong("was not issued by the authority beside it");
  if (X509_cmp_current_time(X509_get0_notAfter(own.get())) <= 0) return wrong("has expired");
  if (X509_cmp_current_time(X509_get0_notBefore(own.get())) >= 0) return wrong("is not valid yet");
  return read;
}

}  // namespace chainpump::transport::rpc
