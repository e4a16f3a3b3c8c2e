#include <sqlite3.h>
#include <sys/stat.h>

#include <limits>
#include <utility>
#include <vector>

#include "actors/store/state_store.h"

namespace chainpump::actors {
namespace {

using graph::DeploymentRecord;

constexpr int64_t kFormat = 3;       // user_version; 0 is a new file
constexpr int64_t kRowsMax = 65536;  // of any table: more than a service may have processes

constexpr const char* kTables =
    "CREATE TABLE deployment (has_served INTEGER, epoch INTEGER, plan_number INTEGER,"
    " first_number INTEGER, numerics_id TEXT) STRICT;"
    "CREATE TABLE lanes (lane INTEGER PRIMARY KEY, epoch INTEGER, first_since INTEGER,"
    " first_is_new INTEGER, serving INTEGER) STRICT;"
    "CREATE TABLE processes (number INTEGER PRIMARY KEY, place INTEGER, is_standby INTEGER,"
    " is_spare INTEGER, is_left_over INTEGER, is_loaded INTEGER) STRICT;"
    "CREATE TABLE ends (number INTEGER PRIMARY KEY, at_ns INTEGER) STRICT;"
    "PRAGMA user_version = 3;";

class SqliteStore final : public StateStore {
 public:
  explicit SqliteStore(std::string path) : path_(std::move(path)) {}
  ~SqliteStore() override { sqlite3_close_v2(db_); }

  Status open() {
    // Made by us, so that nobody else could ever read it.
    const mode_t others = ::umask(0077);
    const int opened =
        sqlite3_open_v2(path_.c_str(), &db_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
    ::umask(others);
    if (opened != SQLITE_OK) return failure("open", opened);
    // What it tells of ends with the machine, so nothing need reach the disk; a process that is
    // killed leaves a journal, by which the next one takes back what was half written.
    RETURN_IF_ERROR(
        run("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = TRUNCATE;"
            "PRAGMA synchronous = OFF; PRAGMA trusted_schema = OFF;"));
    ASSIGN_OR_RETURN(const auto format, rows("PRAGMA user_version", 1));
    if (format.at(0).at(0) == 0) {
      ASSIGN_OR_RETURN(const auto tables, rows("SELECT count(*) FROM sqlite_schema", 1));
      if (tables.at(0).at(0) != 0) return bad("it is no coordinator's");
      return run((std::string("BEGIN IMMEDIATE;") + kTables + "COMMIT").c_str());
    }
    if (format.at(0).at(0) != kFormat) return bad("it is of another release");
    return run("BEGIN IMMEDIATE; COMMIT");  // from here on it is ours
  }

  Result<std::optional<DeploymentRecord>> read() override {
    ASSIGN_OR_RETURN(
        const auto head,
        rows("SELECT has_served, epoch, plan_number, first_number FROM deployment", 4));
    if (head.empty()) return std::optional<DeploymentRecord>();
    ASSIGN_OR_RETURN(const auto lanes,
                     rows("SELECT lane, epoch, first_since, first_is_new, serving FROM lanes"
                          " ORDER BY lane",
                          6));
    ASSIGN_OR_RETURN(const auto processes,
                     rows("SELECT number, place, is_standby, is_spare, is_left_over, is_loaded "
                          "FROM processes ORDER BY number",
                          6));
    ASSIGN_OR_RETURN(const auto ends, rows("SELECT number, at_ns FROM ends ORDER BY number", 2));
    DeploymentRecord record{.plan_number = 0,
                            .first_number = 0,
                            .has_served = head[0][0] != 0,
                            .epoch = {},
                            .numerics_id = {},
                            .lanes = {},
                            .processes = {},
                            .ends = {}};
    ASSIGN_OR_RETURN(record.epoch, epoch_of(head[0][1]));
    ASSIGN_OR_RETURN(record.plan_number, count_of(head[0][2]));
    ASSIGN_OR_RETURN(record.first_number, count_of(head[0][3]));
    ASSIGN_OR_RETURN(record.numerics_id, text("SELECT numerics_id FROM deployment"));
    for (const auto& row : lanes) {
      if (row[0] != std::ssize(record.lanes)) return bad("a lane is missing");
      ASSIGN_OR_RETURN(const PlanEpoch epoch, epoch_of(row[1]));
      ASSIGN_OR_RETURN(const PlanEpoch since, epoch_of(row[2]));
      record.lanes.push_back({epoch, since, row[3] != 0, row[4] != 0});
    }
    for (const auto& row : processes) {
      if (row[0] != std::ssize(record.processes)) return bad("a process is missing");
      ASSIGN_OR_RETURN(const RankId place, place_of(row[1]));
      record.processes.push_back({place, row[2] != 0, row[3] != 0, row[4] != 0, row[5] != 0});
    }
    for (const auto& row : ends) record.ends.push_back({Duration(row[1])});
    return std::optional(std::move(record));
  }

  Status write(const DeploymentRecord& record) override {
    RETURN_IF_ERROR(run("BEGIN IMMEDIATE"));
    Status written = write_rows(record);
    if (written.ok()) written = run("COMMIT");
    if (!written.ok()) (void)run("ROLLBACK");  // a full disk may have done so already
    return written;
  }

  Status clear() override {
    return run((std::string("BEGIN IMMEDIATE;") + kDeleteAll + "; COMMIT").c_str());
  }

 private:
  using Row = std::vector<int64_t>;
  static constexpr const char* kDeleteAll =
      "DELETE FROM deployment; DELETE FROM lanes; DELETE FROM processes; DELETE FROM ends";

  Status write_rows(const DeploymentRecord& record) {
    RETURN_IF_ERROR(run(kDeleteAll));
    RETURN_IF_ERROR(
        insert("INSERT INTO deployment VALUES (?, ?, ?, ?, ?)",
               {record.has_served, record.epoch.value, record.plan_number, record.first_number},
               &record.numerics_id));
    for (size_t i = 0; i < record.lanes.size(); ++i) {
      const DeploymentRecord::Lane& lane = record.lanes[i];
      RETURN_IF_ERROR(insert("INSERT INTO lanes VALUES (?, ?, ?, ?, ?)",
                             {static_cast<int64_t>(i), lane.epoch.value, lane.first_since.value,
                              lane.first_is_new, lane.serving}));
    }
    for (size_t i = 0; i < record.processes.size(); ++i) {
      const DeploymentRecord::Process& process = record.processes[i];
      RETURN_IF_ERROR(insert("INSERT INTO processes VALUES (?, ?, ?, ?, ?, ?)",
                             {static_cast<int64_t>(i), process.place.value, process.is_standby,
                              process.is_spare, process.is_left_over, process.is_loaded}));
    }
    for (size_t i = 0; i < record.ends.size(); ++i)
      RETURN_IF_ERROR(insert("INSERT INTO ends VALUES (?, ?)",
                             {static_cast<int64_t>(i), record.ends[i].since_epoch.count()}));
    return ok_status();
  }

  Status run(const char* sql) {
    const int done = sqlite3_exec(db_, sql, nullptr, nullptr, nullptr);
    return done == SQLITE_OK ? ok_status() : failure(sql, done);
  }

  /// A prepared statement, for as long as it lives.
  class Statement {
   public:
    Statement(sqlite3* db, const char* sql)
        : prepared_(sqlite3_prepare_v2(db, sql, -1, &statement_, nullptr)) {}
    ~Statement() { sqlite3_finalize(statement_); }
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;
    int prepared() const { return prepared_; }
    sqlite3_stmt* get() const { return statement_; }

   private:
    sqlite3_stmt* statement_ = nullptr;
    int prepared_;
  };

  Status insert(const char* sql, const Row& values, const std::string* last_text = nullptr) {
    const Statement statement(db_, sql);
    if (statement.prepared() != SQLITE_OK) return failure(sql, statement.prepared());
    int column = 0;
    for (const int64_t value : values) sqlite3_bind_int64(statement.get(), ++column, value);
    if (last_text != nullptr)
      sqlite3_bind_text(statement.get(), ++column, last_text->data(),
                        static_cast<int>(last_text->size()), SQLITE_STATIC);
    const int done = sqlite3_step(statement.get());
    return done == SQLITE_DONE ? ok_status() : failure(sql, done);
  }

  /// Rows of integers; the tables are strict, so that nothing else can be in them.
  Result<std::vector<Row>> rows(const char* sql, int num_columns) {
    const Statement statement(db_, sql);
    if (statement.prepared() != SQLITE_OK) return failure(sql, statement.prepared());
    std::vector<Row> found;
    int step = 0;
    while ((step = sqlite3_step(statement.get())) == SQLITE_ROW) {
      if (std::ssize(found) == kRowsMax) return bad("it has too many rows");
      Row& row = found.emplace_back();
      for (int i = 0; i < num_columns; ++i) row.push_back(sqlite3_column_int64(statement.get(), i));
    }
    if (step != SQLITE_DONE) return failure(sql, step);
    return found;
  }

  Result<std::string> text(const char* sql) {
    const Statement statement(db_, sql);
    if (statement.prepared() != SQLITE_OK) return failure(sql, statement.prepared());
    const int step = sqlite3_step(statement.get());
    if (step != SQLITE_ROW) return failure(sql, step);
    const auto* bytes = sqlite3_column_text(statement.get(), 0);
    const auto size = static_cast<size_t>(sqlite3_column_bytes(statement.get(), 0));
    return bytes ? std::string(reinterpret_cast<const char*>(bytes), size) : std::string();
  }

  Result<PlanEpoch> epoch_of(int64_t value) const {
    if (value < 0 || value > std::numeric_limits<uint32_t>::max()) return bad("no such epoch");
    return PlanEpoch(static_cast<uint32_t>(value));
  }

  Result<RankId> place_of(int64_t value) const {
    if (value < 0 || value > std::numeric_limits<uint32_t>::max()) return bad("no such place");
    return RankId(static_cast<uint32_t>(value));
  }

  Result<uint32_t> count_of(int64_t value) const {
    if (value < 0 || value > std::numeric_limits<uint32_t>::max()) return bad("no such number");
    return static_cast<uint32_t>(value);
  }

  Error bad(const char* what) const {
    return make_error(ErrorCode::bad_file, "{}: not a state of this coordinator: {}", path_, what);
  }

  /// What the library says, in our codes.
  Error failure(const char* what, int code) const {
    const char* const message = db_ ? sqlite3_errmsg(db_) : sqlite3_errstr(code);
    switch (code & 0xff) {
      case SQLITE_NOTADB:
      case SQLITE_CORRUPT:
      case SQLITE_ERROR:  // a table or column is missing
        return make_error(ErrorCode::bad_file, "{}: the state is damaged: {}", path_, message);
      case SQLITE_FULL:
      case SQLITE_IOERR:  // what a full disk is at some calls
      case SQLITE_NOMEM:
      case SQLITE_CANTOPEN:
        return make_error(ErrorCode::no_room, "{}: the state cannot be kept: {}", path_, message);
      case SQLITE_BUSY:
      case SQLITE_LOCKED:
        return make_error(ErrorCode::overloaded, "{}: another process uses the state: {}", path_,
                          message);
      default:
        return make_error(ErrorCode::internal, "{}: {}: {}", path_, what, message);
    }
  }

  const std::string path_;
  sqlite3* db_ = nullptr;
};

}  // namespace

Result<std::unique_ptr<StateStore>> open_sqlite_store(const std::string& path) {
  auto store = std::make_unique<SqliteStore>(path);
  RETURN_IF_ERROR(store->open());
  return Result<std::unique_ptr<StateStore>>(std::move(store));
}

}  // namespace chainpump::actors
