// Package sqltest runs the SQL guard of package fence against databases: an
// embedded SQLite always, and private servers of PostgreSQL and MariaDB where
// their programs are installed. It is a module of its own so that their drivers
// are nobody else's dependencies.
package sqltest
